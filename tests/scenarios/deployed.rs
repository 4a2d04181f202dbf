//! The daemon as orchestrators run it: secrets in files, a manager that waits for word of it.

use std::process::Stdio;

use tokio::process::Command;

use crate::support::program::{Folder, Program, refused};
use crate::support::within;

const TOKEN: &str = "sixteen-characters";

/// How `inflightd healthcheck` ends with these variables.
async fn healthcheck(program: &Program, keys: &[(&str, &str)]) -> Option<i32> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inflightd"));
    command.arg("healthcheck").env_clear().env("INFLIGHTD_URL", format!("ws://{}", program.address));
    command.envs(keys.iter().copied()).stdout(Stdio::null()).stderr(Stdio::null());
    within("the end of healthcheck", command.status()).await.unwrap().code()
}

#[tokio::test]
async fn daemon_and_healthcheck_take_their_token_from_a_file() {
    let folder = Folder::new();
    folder.write("token", &format!("{TOKEN}\n"));
    let file = folder.path("token");
    let program = Program::start_in(folder, &[("INFLIGHTD_TOKEN_FILE", "token")]).await;
    assert_eq!(healthcheck(&program, &[]).await, Some(1));
    assert_eq!(healthcheck(&program, &[("INFLIGHTD_TOKEN_FILE", &file)]).await, Some(0));
    assert_eq!(healthcheck(&program, &[("INFLIGHTD_TOKEN", TOKEN)]).await, Some(0));
    assert_eq!(healthcheck(&program, &[("INFLIGHTD_TOKEN_FILE", "/nothing/here")]).await, Some(1));
    assert!(!program.log().contains(TOKEN));
}

#[tokio::test]
async fn a_secret_file_that_is_not_there_refuses_to_start() {
    let ended = refused(&Folder::new(), &[("KIMI_API_KEY_FILE", "nowhere")]).await;
    assert_eq!(ended.code, Some(78));
    assert!(ended.log.contains("KIMI_API_KEY_FILE must name a file with the secret"), "{}", ended.log);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_service_manager_is_told_when_it_serves_and_when_it_stops() {
    let folder = Folder::new();
    let path = folder.path("notify");
    let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
    let program = Program::start_in(folder, &[("NOTIFY_SOCKET", &path)]).await;
    let mut text = [0; 64];
    let bytes = within("word that it is ready", socket.recv(&mut text)).await.unwrap();
    assert_eq!(&text[..bytes], b"READY=1\n");
    program.terminate();
    let bytes = within("word that it stops", socket.recv(&mut text)).await.unwrap();
    assert_eq!(&text[..bytes], b"STOPPING=1\n");
    assert_eq!(program.ended().await.code, Some(0));
}
