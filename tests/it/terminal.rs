//! The demo as somebody at a terminal sees it.

use crate::{
    process::{Launch, Process},
    world::PATIENCE,
};

#[test]
fn the_live_view_shows_records_and_its_account_and_no_noise_of_the_library() {
    let demo = format!("'{}' demo --for 3s", env!("CARGO_BIN_EXE_o365feed"));
    let mut launch = Launch::o365feed(["--quiet", "--return", "--command", &demo, "/dev/null"]);
    launch.program = "script".into();
    let mut process = Process::start(launch, "");
    assert_eq!(process.wait_exit(PATIENCE), 0, "{}", process.stderr());
    let shown = process.stdout();
    assert!(shown.contains("Ctrl-C ends it and gives the account"), "it took this for no terminal: {shown}");
    assert!(shown.contains("@contoso.example") && shown.contains(" 0 missing, 0 duplicate, 0 gaps"), "{shown}");
    assert!(!shown.contains("PartitionEOF"), "{shown}");
}
