//! What a run leaves behind: a table in Markdown on standard output and in a file, the same as
//! JSON for programs, and a chart.

#[path = "report/json.rs"]
pub mod json;
#[path = "report/svg.rs"]
pub mod svg;
#[path = "report/table.rs"]
pub mod table;
#[path = "report/targets.rs"]
pub mod targets;

use crate::results::{Failure, Results};
use std::fs;
use std::path::Path;

/// Writes `table.md`, `results.json` and `chart.svg` into a directory, which is made.
pub fn write(results: &Results, dir: &Path) -> Result<(), Failure> {
    let within = |error| format!("{}: {error}", dir.display());
    fs::create_dir_all(dir).map_err(within)?;
    fs::write(dir.join("table.md"), table::render(results)).map_err(within)?;
    fs::write(dir.join("results.json"), json::render(results)).map_err(within)?;
    fs::write(dir.join("chart.svg"), svg::render(results)).map_err(within)?;
    Ok(())
}
