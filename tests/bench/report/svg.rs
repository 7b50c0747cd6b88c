//! The chart: a panel for each case, since their units and sizes differ; in it a bar for each
//! contestant up to its median, with a whisker from the smallest to the largest repeat.

use crate::results::{Line, Results, Row};
use crate::stats::short;
use std::fmt::Write;

const COLUMNS: usize = 3;
const PANEL_WIDTH: f64 = 330.0;
const PANEL_HEIGHT: f64 = 230.0;
const LEGEND_HEIGHT: f64 = 56.0;
/// Within a panel: where the axes are.
const LEFT: f64 = 62.0;
const TOP: f64 = 34.0;
const PLOT_WIDTH: f64 = PANEL_WIDTH - LEFT - 14.0;
const PLOT_HEIGHT: f64 = PANEL_HEIGHT - TOP - 24.0;
const LEGEND_STEP: f64 = 118.0;
/// Room above the highest whisker, for the number on it.
const HEADROOM: f64 = 1.12;
/// How many lines the grid has, about.
const TICKS: f64 = 4.0;

/// Colours that can be told apart by most eyes (Okabe and Ito), in the order in which
/// contestants appear.
const COLOURS: [&str; 8] =
    ["#0072b2", "#56b4e9", "#009e73", "#e69f00", "#cc79a7", "#d55e00", "#7f7f7f", "#000000"];

/// The whole chart.
pub fn render(results: &Results) -> String {
    let names = contestants(results);
    let lines = results.rows.len().div_ceil(COLUMNS);
    let (width, height) =
        (PANEL_WIDTH * number(COLUMNS), LEGEND_HEIGHT + PANEL_HEIGHT * number(lines));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    legend(&mut out, &names);
    for (place, row) in results.rows.iter().enumerate() {
        let x = PANEL_WIDTH * number(place % COLUMNS);
        let y = LEGEND_HEIGHT + PANEL_HEIGHT * number(place / COLUMNS);
        let _ = writeln!(out, "<g transform=\"translate({x} {y})\">");
        panel(&mut out, row, &names);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

fn contestants(results: &Results) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for line in results.rows.iter().flat_map(|row| &row.lines) {
        if !names.contains(&line.side.as_str()) {
            names.push(&line.side);
        }
    }
    names
}

fn legend(out: &mut String, names: &[&str]) {
    let title = "Medians; whiskers from the smallest to the largest repeat. More is better.";
    let _ = writeln!(out, "<text x=\"12\" y=\"18\" font-size=\"13\">{title}</text>");
    for (place, name) in names.iter().enumerate() {
        let x = 12.0 + LEGEND_STEP * number(place);
        let (colour, text) = (colour_of(place), escaped(name));
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"30\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"40\">{text}</text>",
            x + 17.0
        );
    }
}

fn panel(out: &mut String, row: &Row, names: &[&str]) {
    let most = row.lines.iter().map(|line| line.rate.most()).fold(0.0, f64::max);
    let top = if most > 0.0 { most * HEADROOM } else { 1.0 };
    let (name, unit) = (escaped(&row.name()), row.case.unit());
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"14\" font-weight=\"bold\">{name}</text>\n\
         <text x=\"{LEFT}\" y=\"27\" fill=\"#555555\">{unit}</text>"
    );
    grid(out, top);
    let step = PLOT_WIDTH / number(row.lines.len().max(1));
    for (place, line) in row.lines.iter().enumerate() {
        let colour = names.iter().position(|name| *name == line.side).unwrap_or_default();
        bar(out, line, colour_of(colour), LEFT + step * number(place), step, top);
    }
}

/// Lines at round values, with their numbers, and the axis below.
fn grid(out: &mut String, top: f64) {
    let step = round_step(top / TICKS);
    let mut value = 0.0;
    while value <= top {
        let (y, end, text) = (height_of(value, top), LEFT + PLOT_WIDTH, tick(value));
        let colour = if value > 0.0 { "#dddddd" } else { "#333333" };
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{end}\" y2=\"{y:.1}\" stroke=\"{colour}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555555\">{text}</text>",
            LEFT - 5.0,
            y + 4.0
        );
        value += step;
    }
}

fn bar(out: &mut String, line: &Line, colour: &str, x: f64, step: f64, top: f64) {
    let (median, base) = (height_of(line.rate.median(), top), height_of(0.0, top));
    let (low, high) = (height_of(line.rate.least(), top), height_of(line.rate.most(), top));
    let (wide, middle) = (step * 0.7, x + step / 2.0);
    let _ = writeln!(
        out,
        "<rect x=\"{:.1}\" y=\"{median:.1}\" width=\"{wide:.1}\" height=\"{:.1}\" \
         fill=\"{colour}\"><title>{}: {}</title></rect>\
         <line x1=\"{middle:.1}\" y1=\"{low:.1}\" x2=\"{middle:.1}\" y2=\"{high:.1}\" \
         stroke=\"#333333\"/>\
         <text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"9\">{}</text>",
        x + step * 0.15,
        base - median,
        escaped(&line.side),
        escaped(&line.rate.text()),
        high - 3.0,
        tick(line.rate.median())
    );
}

fn height_of(value: f64, top: f64) -> f64 {
    TOP + PLOT_HEIGHT * (1.0 - value / top)
}

/// 1, 2 or 5 with zeros, the next above.
fn round_step(least: f64) -> f64 {
    let unit = 10_f64.powf(least.log10().floor());
    let rounds = [1.0, 2.0, 5.0].map(|factor| factor * unit);
    rounds.into_iter().find(|step| *step >= least).unwrap_or(10.0 * unit)
}

/// Thousands as `12k`, so that it fits.
fn tick(value: f64) -> String {
    let text = if value >= 1e4 { format!("{:.0}k", value / 1e3) } else { short(value) };
    if value == 0.0 { "0".to_owned() } else { text }
}

fn colour_of(place: usize) -> &'static str {
    COLOURS[place % COLOURS.len()]
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[expect(clippy::cast_precision_loss, reason = "a handful of panels")]
fn number(count: usize) -> f64 {
    count as f64
}
