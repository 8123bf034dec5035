//! The main job, before the reader's eyes.

use crate::{Options, build};
use anyhow::Result;

pub fn run(options: &Options) -> Result<()> {
    let _ = build::all(options)?;
    anyhow::bail!("the demo is not written yet")
}
