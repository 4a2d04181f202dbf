//! What a hello says of its client, and what it is told of the daemon's timeouts.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::clients::Met;
use crate::config::Ladder;
use crate::proto::op::push_secs;
use crate::proto::{ClientInfo, View, read_object};

/// Who says hello, if it says anything of itself. It is read apart: no other frame has these members.
pub(super) fn introduced(hello: &str, view: &View<'_>) -> Option<Met> {
    #[derive(Default, Deserialize)]
    struct Hello<'a> {
        #[serde(borrow, default, rename = "clientInfo")]
        client_info: Option<&'a RawValue>,
        #[serde(borrow, default)]
        timeouts: Option<&'a RawValue>,
    }
    #[derive(Default, Deserialize)]
    struct Timeouts {
        #[serde(default)]
        shim_secs: Option<f64>,
        #[serde(default)]
        client_secs: Option<f64>,
    }
    let hello: Hello<'_> = read_object(hello).unwrap_or_default();
    if hello.client_info.is_none() && hello.timeouts.is_none() {
        return None;
    }
    let client = hello.client_info.map_or_else(ClientInfo::default, |text| ClientInfo::read(text.get()));
    let Timeouts { shim_secs, client_secs } =
        hello.timeouts.and_then(|text| read_object(text.get()).ok()).unwrap_or_default();
    let span = |secs: Option<f64>| {
        secs.and_then(|secs| Duration::try_from_secs_f64(secs).ok()).filter(|span| !span.is_zero())
    };
    let (name, version) = client.parts();
    Some(view.clients.meet(name, version, &[span(shim_secs), span(client_secs)]))
}

/// Appends the rungs of the ladder.
pub(super) fn push_timeouts(out: &mut String, ladder: &Ladder) {
    let rungs = [
        ("\"tool_secs\":", ladder.tool()),
        (",\"daemon_secs\":", ladder.daemon),
        (",\"shim_secs\":", ladder.shim),
        (",\"client_secs\":", ladder.client),
    ];
    for (name, rung) in rungs {
        out.push_str(name);
        push_secs(out, rung);
    }
}
