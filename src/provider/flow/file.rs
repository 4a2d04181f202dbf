//! Reads the file of a flow: whole, and only if it is not too large.

use std::fs::File;
use std::io::{self, Read};

use crate::provider::flow::format::MOST_BYTES;
use crate::provider::flow::problem::Problem;

/// Why a file has no content to read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be a flow.
    #[error("{0}")]
    Problem(Problem),
    /// The operating system says no.
    #[error("read it")]
    Io(#[from] io::Error),
}

/// What stands in an open file. One that is too large is refused before it is read, let alone parsed.
///
/// # Errors
/// It is no regular file, it is too large, or it cannot be read.
pub fn read(mut file: File) -> Result<Vec<u8>, ReadError> {
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(ReadError::Problem(Problem::NoFile));
    }
    let too_large = |bytes| ReadError::Problem(Problem::TooLarge { bytes, limit: MOST_BYTES });
    if about.len() > MOST_BYTES {
        return Err(too_large(about.len()));
    }
    // It may grow while it is read.
    let mut bytes = Vec::with_capacity(usize::try_from(about.len()).unwrap_or_default());
    let read = file.by_ref().take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    let read = u64::try_from(read).unwrap_or(u64::MAX);
    if read > MOST_BYTES { Err(too_large(read)) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_fifty_megabytes_is_refused_before_it_is_read() {
        let path = std::env::temp_dir().join(format!("inflightd-large-flow-{}", std::process::id()));
        // Sparse: were it read, there would be 50 MB of zeros.
        File::create(&path).unwrap().set_len(50_000_000).unwrap();
        let refused = read(File::open(&path).unwrap()).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(refused.to_string(), "The file has 50000000 bytes; 16777216 are the most.");
        let folder = File::open(std::env::temp_dir()).unwrap();
        assert_eq!(read(folder).unwrap_err().to_string(), "It is no regular file.");
    }
}
