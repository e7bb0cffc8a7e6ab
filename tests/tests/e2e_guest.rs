//! The guest harness itself: a guest starts, runs commands, tells their exit status, and ends cleanly.

use halfhour_tests::guest::Guest;

#[test]
fn a_guest_runs_commands_and_ends() {
    let Some(builder) = Guest::builder() else { return };
    let mut guest = builder.program(halfhour_tests::binary::imager()).boot();
    assert_eq!(guest.ok(&["uname", "-s"]), "Linux\n");
    assert_eq!(
        guest.run(&["sh", "-c", "echo out; echo err >&2; exit 7"]).expect_code(7).text(),
        "out\nerr\n"
    );
    assert!(guest.ok(&["imager", "--version"]).starts_with("imager "));
    let job = guest.start(&["sleep", "1000"]);
    let process = guest.process(&job);
    guest.ok(&["kill", "-KILL", &process]);
    assert_eq!(guest.wait(&job).code, -1, "by a signal");
    guest.end();
}
