//! `inflightd guard`: what the daemon starts before each module, to end all that the module started.

use std::process::ExitCode;

/// Guards one module. Its stdout is the module's own, so nothing is said here but on the daemon's socket.
#[cfg(target_os = "linux")]
pub fn run() -> ExitCode {
    match crate::provider::command::guard::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            super::complain(&format!("could not {}", crate::client::explain(&error)));
            ExitCode::from(super::EXIT_USAGE)
        }
    }
}

/// There is none here.
#[cfg(not(target_os = "linux"))]
pub fn run() -> ExitCode {
    super::complain("only Linux has guards");
    ExitCode::from(super::EXIT_USAGE)
}
