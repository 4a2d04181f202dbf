//! Reading an object's members into what is there already: a large struct would be moved through each layer of the parser.

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

/// What takes members one by one.
pub(super) trait Fill<'de> {
    /// What is expected, in an error's text.
    const WHAT: &'static str;

    /// Takes the value of the member of this name.
    fn take<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error>;

    /// That was all.
    fn done(&mut self) {}
}

/// An object that is read into this.
pub(super) struct Into<'t, T>(pub(super) &'t mut T);

impl<'de, T: Fill<'de>> DeserializeSeed<'de> for Into<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Fill<'de>> Visitor<'de> for Into<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(T::WHAT)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<super::Str<'de>>()? {
            self.0.take(&name.0, &mut map)?;
        }
        self.0.done();
        Ok(())
    }
}

/// Reads a whole text.
pub(super) fn read<'de, T: Fill<'de>>(text: &'de str, into: &mut T) -> serde_json::Result<()> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Into(into).deserialize(&mut deserializer)?;
    deserializer.end()
}
