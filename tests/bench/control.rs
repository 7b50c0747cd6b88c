//! What is not a rate: attaching a volume, listing VDIs, doing nothing.

use crate::contest::Meter;
use crate::mounted::{Mounted, NULL};
use crate::results::{Failure, Figure};
use crate::site::Site;
use crate::stats::Samples;
use crate::support_wire::{Wire, working_ref};
use sheepfs::wire::request::NewVdi;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Attaches of each contestant, for each repeat that was asked for.
const ATTACHES: u32 = 5;
/// How long nothing is done.
const IDLE: Duration = Duration::from_secs(10);
/// How long what was done before may have an end.
const SETTLE: Duration = Duration::from_secs(1);
/// Bytes of a VDI that is only there to be listed.
const LISTED_SIZE: u64 = 1 << 30;

/// How long it takes to attach a volume.
pub fn attach(mounts: &[Mounted], repeats: u32) -> Result<Figure, Failure> {
    let mut lines = lines_of(mounts);
    for _ in 0..repeats * ATTACHES {
        for (mounted, (_, samples)) in mounts.iter().zip(&mut lines) {
            if let Some(took) = mounted.attach()? {
                samples.push(millis(took));
            }
            mounted.detach()?;
        }
    }
    lines.retain(|(_, samples)| !samples.values().is_empty());
    Ok(Figure { name: "attach a volume".to_owned(), unit: "ms", lines })
}

/// How long it takes to list so many VDIs, which are made, and deleted unless the cluster is
/// our own. `dog` takes part where the environment names it.
pub fn list(site: &Site, mounts: &[Mounted], count: u32, repeats: u32) -> Result<Figure, Failure> {
    let names: Vec<String> = (0..count).map(|number| format!("bench-listed-{number}")).collect();
    let mut wire = Wire::connect(site.gateway());
    for name in &names {
        wire.new_vdi(name, &NewVdi { size: LISTED_SIZE, ..NewVdi::default() });
    }
    let figure = timed_lists(site, mounts, &names, repeats);
    if !site.is_own() {
        for name in &names {
            wire.delete(&working_ref(name));
        }
    }
    figure
}

fn timed_lists(
    site: &Site,
    mounts: &[Mounted],
    names: &[String],
    repeats: u32,
) -> Result<Figure, Failure> {
    let mut lines = lines_of(mounts);
    let dog = std::env::var("DOG").ok();
    let mut by_dog = Samples::default();
    for _ in 0..repeats {
        for (mounted, (side, samples)) in mounts.iter().zip(&mut lines) {
            let start = Instant::now();
            let Some(text) = mounted.list()? else { continue };
            samples.push(millis(start.elapsed()));
            complete(&text, names).map_err(|failure| format!("{side}: {failure}"))?;
        }
        if let Some(dog) = &dog {
            let start = Instant::now();
            let text = dog_list(dog, site)?;
            by_dog.push(millis(start.elapsed()));
            complete(&text, names).map_err(|failure| format!("{dog}: {failure}"))?;
        }
    }
    if dog.is_some() {
        lines.push(("dog vdi list".to_owned(), by_dog));
    }
    lines.retain(|(_, samples)| !samples.values().is_empty());
    Ok(Figure { name: format!("list {} VDIs", names.len()), unit: "ms", lines })
}

fn dog_list(dog: &str, site: &Site) -> Result<String, Failure> {
    let (host, port) = site.gateway().rsplit_once(':').ok_or("no port")?;
    let output = Command::new(dog).args(["vdi", "list", "-a", host, "-p", port]).output();
    let output = output.map_err(|error| format!("{dog}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{dog}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A list that is quick because it is short is none.
fn complete(list: &str, names: &[String]) -> Result<(), Failure> {
    let found = list.matches(" bench-listed-").count();
    match found == names.len() {
        true => Ok(()),
        false => Err(format!("{found} of {} VDIs listed", names.len()).into()),
    }
}

/// Processor time of all processes of a contestant, with a volume attached and nothing to do.
pub fn idle(mounts: &[Mounted]) -> Result<Figure, Failure> {
    let mut lines = lines_of(mounts);
    for (mounted, (_, samples)) in mounts.iter().zip(&mut lines) {
        if mounted.name() == NULL {
            continue;
        }
        mounted.attach()?;
        thread::sleep(SETTLE);
        let meter = Meter::start(mounted.processes())?;
        thread::sleep(IDLE);
        samples.push(meter.stop()?.into_iter().map(|(_, time)| millis(time)).sum());
        mounted.detach()?;
    }
    lines.retain(|(_, samples)| !samples.values().is_empty());
    let name = format!("processor time of {} s without load", IDLE.as_secs());
    Ok(Figure { name, unit: "ms", lines })
}

fn lines_of(mounts: &[Mounted]) -> Vec<(String, Samples)> {
    mounts.iter().map(|mounted| (mounted.name().to_owned(), Samples::default())).collect()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
