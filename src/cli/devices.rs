//! `couplet devices`: what couplet can compute on here, and why not on the rest.

use super::say_exactly;
use couplet::device::probe::probe;
use couplet::error::Result;

/// `couplet devices` has no flags.
#[derive(clap::Args)]
pub struct Args {}

/// Lists every device that can be typed after `--device`.
pub fn run(_: Args) -> Result<()> {
    let rows = probe();
    let width = rows.iter().map(|r| r.name.len()).max().unwrap_or(0);
    let mut table = String::new();
    for row in &rows {
        let (mark, text) = match &row.answers {
            Ok(what) => ("yes", what),
            Err(why) => ("no ", why),
        };
        table += &format!("{:width$}  {mark}  {text}\n", row.name);
    }
    say_exactly(&table)
}
