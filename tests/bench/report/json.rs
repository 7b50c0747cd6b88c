//! The results for programs.

use crate::results::{Figure, Line, Memory, Process, Results, Row};
use crate::stats::Samples;
use serde_json::{Map, Value, json};

/// All of a run, as one object.
pub fn render(results: &Results) -> String {
    let facts = results.scene.facts.iter();
    let scene: Map<String, Value> =
        facts.map(|(word, value)| ((*word).to_owned(), json!(value))).collect();
    let whole = json!({
        "scene": scene,
        "cases": results.rows.iter().map(row).collect::<Vec<_>>(),
        "figures": results.figures.iter().map(figure).collect::<Vec<_>>(),
        "memory_kib": results.processes.iter().map(process).collect::<Vec<_>>(),
    });
    format!("{whole:#}\n")
}

fn row(row: &Row) -> Value {
    json!({
        "name": row.name(),
        "unit": row.case.unit(),
        "bytes": row.case.len,
        "depth": row.case.depth,
        "contestants": row.lines.iter().map(line).collect::<Vec<_>>(),
    })
}

fn line(line: &Line) -> Value {
    let cpu = line.cpu.iter();
    let cpu: Map<String, Value> =
        cpu.map(|(group, of)| (group.name().to_owned(), samples(of))).collect();
    json!({ "name": line.side, "rate": samples(&line.rate), "cpu_us_per_request": cpu })
}

fn samples(of: &Samples) -> Value {
    json!({ "median": of.median(), "values": of.values() })
}

fn figure(figure: &Figure) -> Value {
    let lines = figure.lines.iter();
    let lines: Vec<_> =
        lines.map(|(side, of)| json!({ "name": side, "time": samples(of) })).collect();
    json!({ "name": figure.name, "unit": figure.unit, "contestants": lines })
}

fn process(process: &Process) -> Value {
    let Memory { peak, anonymous, file, shared } = process.memory;
    json!({
        "contestant": process.side,
        "process": process.group.name(),
        "peak": peak,
        "anonymous": anonymous,
        "file": file,
        "shared": shared,
    })
}
