//! The tables, in Markdown, so that they can be pasted where they are needed.

use super::targets;
use crate::results::{GROUPS, Line, Results, Row};
use crate::stats::{Samples, short};
use std::fmt::Write;

/// All tables of a run.
pub fn render(results: &Results) -> String {
    let parts = [
        scene(results),
        rates(results),
        figures(results),
        targets::render(results),
        memory(results),
    ];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

fn scene(results: &Results) -> String {
    let mut out = String::new();
    for (word, value) in &results.scene.facts {
        let _ = writeln!(out, "- {word}: {value}");
    }
    out
}

fn rates(results: &Results) -> String {
    if results.rows.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "| case | contestant | median (min-max) | unit | /wire | /routed | /original \
         | µs of CPU per request: client | supervisor | worker | sheep |\n\
         | --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for row in &results.rows {
        for (number, line) in row.lines.iter().enumerate() {
            let name = if number == 0 { row.name() } else { String::new() };
            let _ = writeln!(out, "| {name} | {} |", cells(row, line).join(" | "));
        }
    }
    out
}

fn cells(row: &Row, line: &Line) -> Vec<String> {
    let ratio = |to: &str| match row.ratio(&line.side, to) {
        Some(ratio) if line.side != to => format!("{ratio:.2}"),
        _ => String::new(),
    };
    let mut cells = vec![line.side.clone(), line.rate.text(), row.case.unit().to_owned()];
    cells.extend(["wire", "wire routed", "original"].map(ratio));
    let cpu = |group| line.cpu.iter().find(|(found, _)| *found == group);
    let median = |samples: &Samples| short(samples.median());
    cells.extend(GROUPS.map(|group| cpu(group).map_or(String::new(), |(_, of)| median(of))));
    cells
}

fn figures(results: &Results) -> String {
    if results.figures.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "| what | contestant | median (min-max) | unit |\n| --- | --- | ---: | --- |\n",
    );
    for figure in &results.figures {
        for (side, samples) in &figure.lines {
            let (name, text) = (&figure.name, samples.text());
            let _ = writeln!(out, "| {name} | {side} | {text} | {} |", figure.unit);
        }
    }
    out
}

fn memory(results: &Results) -> String {
    if results.processes.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "| memory in MiB, largest seen | process | peak | anonymous | of files | shared |\n\
         | --- | --- | ---: | ---: | ---: | ---: |\n",
    );
    for process in &results.processes {
        let memory = process.memory;
        let cells = [memory.peak, memory.anonymous, memory.file, memory.shared].map(mib);
        let (side, group) = (&process.side, process.group.name());
        let _ = writeln!(out, "| {side} | {group} | {} |", cells.join(" | "));
    }
    out
}

fn mib(kib: u64) -> String {
    format!("{}.{}", kib / 1024, kib % 1024 * 10 / 1024)
}
