//! The parts of the benchmark that only compute: medians, what fio is asked and answers, what
//! /proc says, places of requests, and the reports.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "the benchmark uses more of its modules")]

#[path = "bench/cases.rs"]
mod cases;
#[path = "bench/fio.rs"]
mod fio;
#[path = "bench/places.rs"]
mod places;
#[path = "bench/proc.rs"]
mod proc;
#[path = "bench/report.rs"]
mod report;
#[path = "bench/results.rs"]
mod results;
#[path = "bench/stats.rs"]
mod stats;

use cases::{Case, Direction, Heat};
use fio::Job;
use places::Places;
use results::{Figure, Group, Memory, Outcome, Results, Row, Scene};
use stats::Samples;
use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

fn samples(values: &[f64]) -> Samples {
    let mut samples = Samples::default();
    values.iter().for_each(|value| samples.push(*value));
    samples
}

fn outcome(per_second: f64) -> Outcome {
    let cpu = vec![(Group::Sheep, Duration::from_millis(20))];
    Outcome { requests: 1000, per_second, cpu }
}

fn results() -> Results {
    let mut row = Row { place: None, case: cases::streams()[0], lines: Vec::new() };
    for rate in [100.0, 300.0, 200.0] {
        row.push("wire", &outcome(rate));
        row.push("mount <&> replica", &outcome(rate * 1.5));
        row.push("mount gateway", &outcome(rate * 0.5));
    }
    let figure = Figure {
        name: "attach a volume".to_owned(),
        unit: "ms",
        lines: vec![("original".to_owned(), samples(&[20.0]))],
    };
    let scene = Scene { facts: vec![("kernel", "6.18".to_owned())] };
    let mut results =
        Results { scene, rows: vec![row], figures: vec![figure], processes: Vec::new() };
    let memory = Memory { peak: 2048, anonymous: 1024, file: 512, shared: 100 };
    results.note("mount gateway", Group::Worker, memory);
    results.note("mount gateway", Group::Worker, Memory { peak: 1024, shared: 512, ..memory });
    results
}

#[test]
fn a_median_is_the_middle_whatever_the_order() {
    assert_eq!(samples(&[]).text(), "0.00 (0.00-0.00)");
    assert_eq!(samples(&[300.0, 1.0, 20.5]).text(), "20.5 (1.00-300)");
    assert!((samples(&[4.0, 1.0, 2.0, 100.0]).median() - 3.0).abs() < 1e-9);
}

#[test]
fn every_case_has_a_name_of_its_own() {
    for all in [cases::usual(), cases::full()] {
        let names: HashSet<String> = all.iter().map(Case::name).collect();
        assert_eq!(names.len(), all.len());
    }
    let full: HashSet<String> = cases::full().iter().map(Case::name).collect();
    let kinds = full.iter().filter(|name| name.contains("70/30")).count();
    assert_eq!(kinds, 9, "three sizes at three depths");
    assert!(full.contains("1 MiB sequential write, depth 32"), "{full:?}");
}

#[test]
fn fio_is_asked_for_the_same_as_the_wire() {
    let job = Job {
        file: Path::new("/m/volume/a:b"),
        bytes: 64 << 20,
        buffered: false,
        time: Duration::from_secs(3),
    };
    let mixed = Case {
        len: 4096,
        direction: Direction::Mixed,
        random: true,
        depth: 32,
        heat: Heat::Steady,
    };
    let has = |job: &Job, case: &Case, word: &str| {
        let arguments = job.arguments(case);
        assert!(arguments.iter().any(|found| found == word), "no {word} in {arguments:?}");
    };
    for word in [
        "--filename=/m/volume/a\\:b",
        "--rw=randrw",
        "--rwmixread=70",
        "--bs=4096",
        "--direct=1",
        "--ioengine=libaio",
        "--iodepth=32",
        "--size=67108864",
        "--runtime=3",
        "--time_based",
    ] {
        has(&job, &mixed, word);
    }
    has(&job, &Case { depth: 1, ..mixed }, "--ioengine=psync");
    // Through the page cache, requests in flight are threads, each with a part of the volume.
    let buffered = Job { buffered: true, ..job };
    for word in ["--direct=0", "--ioengine=psync", "--numjobs=32", "--size=2097152"] {
        has(&buffered, &mixed, word);
    }
    let cold = buffered.arguments(&Case { heat: Heat::Cold, ..mixed });
    assert!(!cold.contains(&"--time_based".to_owned()), "each block once: {cold:?}");
}

#[test]
fn fio_s_report_is_read_or_refused() {
    let report = |error: u32, ios: u32| {
        format!(
            "fio: a note\n{{\"jobs\": [{{\"error\": {error}, \"job_runtime\": 2000, \
             \"usr_cpu\": 10.0, \"sys_cpu\": 15.0, \
             \"read\": {{\"iops\": 70.5, \"total_ios\": {ios}}}, \
             \"write\": {{\"iops\": 30.0, \"total_ios\": {ios}}}}}]}}"
        )
    };
    let read = fio::read_report(&report(0, 7)).unwrap();
    assert_eq!(read.requests, 14);
    assert!((read.per_second - 100.5).abs() < 1e-9);
    assert_eq!(read.cpu, [(Group::Client, Duration::from_millis(500))]);
    for wrong in [report(5, 7), report(0, 0), "no brace".to_owned(), "{".to_owned()] {
        assert!(fio::read_report(&wrong).is_err(), "{wrong}");
    }
}

#[test]
fn what_proc_says_is_understood() {
    let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
    assert_eq!(proc::ticks_in(stat), Some(200));
    assert_eq!(proc::ticks_in(""), None);
    let status = "VmHWM:\t  5000 kB\nRssAnon:\t 10 kB\nRssFile:\t 20 kB\nRssShmem:\t 30 kB\n";
    let memory = Memory { peak: 5000, anonymous: 10, file: 20, shared: 30 };
    assert_eq!(proc::memory_in(status), Some(memory));
    assert_eq!(proc::memory_in("VmHWM: 1 kB"), None);
    let line = |state| format!(" 0: 0100007F:1B58 00000000:0000 {state} 0:0 00:0 0 0 0 4242 1");
    let address = "127.0.0.1:7000".parse().unwrap();
    assert_eq!(proc::listener_in(&line("0A")), Some((address, 4242)));
    assert_eq!(proc::listener_in(&line("01")), None, "a connection");
}

#[test]
fn requests_in_flight_at_random_places_never_overlap() {
    let case = Case {
        len: 4096,
        direction: Direction::Mixed,
        random: true,
        depth: 32,
        heat: Heat::Steady,
    };
    let (bytes, mut owners, mut writes) = (1 << 20, vec![None; 256], 0);
    let places = Places::new(&case, bytes);
    for step in 0..10_000 {
        let slot = step % case.depth;
        let place = places.next(slot);
        assert!(place.offset + u64::from(case.len) <= bytes);
        let owner = &mut owners[usize::try_from(place.offset / 4096).unwrap()];
        assert_eq!(*owner.get_or_insert(slot), slot, "a block of another slot");
        writes += u32::from(place.write);
    }
    assert!((2_700..3_300).contains(&writes), "{writes} of 10,000 are no 30 %");
}

#[test]
fn a_table_has_medians_ratios_and_time_for_each_request() {
    let table = report::table::render(&results());
    for line in [
        "| 1 MiB sequential read, depth 4 | wire | 200 (100-300) | MiB/s |  |  |  |  |  |  | 20.0 |",
        "|  | mount <&> replica | 300 (150-450) | MiB/s | 1.50 |  |  |  |  |  | 20.0 |",
        "| attach a volume | original | 20.0 (20.0-20.0) | ms |",
        "| 1 MiB sequential read, depth 4 | mount gateway / wire | 0.90 | 0.50 | no |",
        "| mount gateway | worker | 2.0 | 1.0 | 0.5 | 0.5 |",
        "- kernel: 6.18",
    ] {
        assert!(table.lines().any(|found| found == line), "no {line} in\n{table}");
    }
}

#[test]
fn json_holds_every_repeat() {
    let parsed: serde_json::Value =
        serde_json::from_str(&report::json::render(&results())).unwrap();
    let wire = &parsed["cases"][0]["contestants"][0];
    assert_eq!(wire["rate"]["values"], serde_json::json!([100.0, 200.0, 300.0]));
    assert_eq!(wire["cpu_us_per_request"]["sheep"]["median"], 20.0);
    assert_eq!(parsed["scene"]["kernel"], "6.18");
    assert_eq!(parsed["memory_kib"][0]["shared"], 512);
    assert_eq!(parsed["figures"][0]["contestants"][0]["time"]["median"], 20.0);
}

#[test]
fn a_chart_is_well_formed_and_has_a_bar_for_each_contestant() {
    let chart = report::svg::render(&results());
    let bars = chart.matches("<title>").count();
    assert_eq!(bars, 3, "{chart}");
    assert!(chart.contains("mount &lt;&amp;&gt; replica"), "{chart}");
    assert!(!chart.contains("NaN") && !chart.contains("inf"), "{chart}");
    assert_balanced(&chart);
    assert_balanced(&report::svg::render(&Results::default()));
}

/// Each tag is closed by its like, or closes itself.
fn assert_balanced(xml: &str) {
    let mut open = Vec::new();
    let mut rest = xml;
    while let Some(at) = rest.find('<') {
        let end = rest[at..].find('>').expect("a tag ends") + at;
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes in {tag}");
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "in {xml}"),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split(' ').next().unwrap()),
        }
    }
    assert_eq!(open, Vec::<&str>::new(), "left open in {xml}");
}

#[test]
fn a_run_leaves_three_files() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("deep").join("out");
    report::write(&results(), &out).unwrap();
    for file in ["table.md", "results.json", "chart.svg"] {
        assert!(out.join(file).metadata().unwrap().len() > 100, "{file}");
    }
}
