//! What the project wants to reach, as ratios within one run, and what this run has reached.

use crate::cases::{Case, Direction, Heat};
use crate::results::{Results, Row};
use std::fmt::Write;

const GATEWAY: &str = "mount gateway";
const REPLICA: &str = "mount replica";
const WIRE: &str = "wire";
const ORIGINAL: &str = "original";

/// A ratio that is wanted in some cases.
#[derive(Clone, Copy, Debug)]
struct Target {
    of: &'static str,
    to: &'static str,
    least: f64,
    takes: fn(&Row) -> bool,
}

/// As the issue on speed has them.
const TARGETS: [Target; 14] = [
    wanted(GATEWAY, WIRE, 0.9, |row| at_home(row) && row.case.depth >= 4),
    wanted(REPLICA, WIRE, 1.4, |row| small(row, Direction::Read, 32)),
    wanted(REPLICA, ORIGINAL, 4.5, |row| small(row, Direction::Read, 32)),
    wanted(REPLICA, WIRE, 1.4, |row| large(row, Direction::Read)),
    wanted(REPLICA, ORIGINAL, 4.0, |row| large(row, Direction::Read)),
    wanted(REPLICA, WIRE, 0.9, |row| small(row, Direction::Write, 32)),
    wanted(REPLICA, ORIGINAL, 2.5, |row| small(row, Direction::Write, 32)),
    wanted(REPLICA, WIRE, 0.9, |row| large(row, Direction::Write)),
    wanted(REPLICA, ORIGINAL, 1.9, |row| large(row, Direction::Write)),
    wanted(REPLICA, ORIGINAL, 0.9, |row| small(row, Direction::Read, 1)),
    wanted(REPLICA, ORIGINAL, 0.9, |row| small(row, Direction::Write, 1)),
    wanted("mount -o", "null", 0.45, small_hit),
    wanted("mount -k", "null", 0.45, small_hit),
    wanted(REPLICA, GATEWAY, 3.5, |row| row.place.is_some()),
];

const fn wanted(of: &'static str, to: &'static str, least: f64, takes: fn(&Row) -> bool) -> Target {
    Target { of, to, least, takes }
}

fn at_home(row: &Row) -> bool {
    row.place.is_none() && row.case.heat == Heat::Steady
}

fn small(row: &Row, direction: Direction, depth: u32) -> bool {
    let Case { len, random, .. } = row.case;
    let same = row.case.direction == direction && row.case.depth == depth;
    at_home(row) && len == 4096 && random && same
}

fn large(row: &Row, direction: Direction) -> bool {
    let Case { len, random, .. } = row.case;
    let same = row.case.direction == direction && row.case.depth == 4;
    at_home(row) && len == 1 << 20 && !random && same
}

fn small_hit(row: &Row) -> bool {
    row.case.heat == Heat::Warm && row.case.len == 4096
}

/// The table; without a row for what was not measured.
pub fn render(results: &Results) -> String {
    let mut out = String::new();
    for row in &results.rows {
        for target in TARGETS.iter().filter(|target| (target.takes)(row)) {
            let Some(ratio) = row.ratio(target.of, target.to) else { continue };
            let (name, of, to, least) = (row.name(), target.of, target.to, target.least);
            let mark = if ratio >= least { "yes" } else { "no" };
            let _ = writeln!(out, "| {name} | {of} / {to} | {least:.2} | {ratio:.2} | {mark} |");
        }
    }
    match out.is_empty() {
        true => out,
        false => format!(
            "| target | ratio | at least | reached | met |\n\
             | --- | --- | ---: | ---: | --- |\n{out}"
        ),
    }
}
