//! The program that is tested.

use std::process::{Command, Stdio};

/// Nothing on its standard input.
pub fn couplet() -> Command {
    // Where the tests run away from the folder that they were built in, the environment says where the program is.
    let program = std::env::var_os("CARGO_BIN_EXE_couplet").unwrap_or_else(|| env!("CARGO_BIN_EXE_couplet").into());
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}
