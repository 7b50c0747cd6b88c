//! VDIs that come, change and go in any order through the tree, against a model in memory:
//! what each of them and each snapshot holds, and what there is.

use crate::MIB;
use crate::cluster::Cluster;
use crate::life::done;
use crate::mount::Mount;
use crate::random::Random;
use crate::rounds::rounds;
use crate::wire::snapshot_ref;
use nix::fcntl::{FallocateFlags, fallocate};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;

/// Objects of 1 MiB, so that few bytes make many of them.
const SHIFT: u8 = 20;
const SIZE_MAX: u64 = 12 * MIB;
const VDIS_MAX: usize = 4;

/// A VDI of the model: what it holds, and what its snapshots hold.
#[derive(Clone, Debug, Default)]
struct Model {
    working: Option<Vec<u8>>,
    snapshots: BTreeMap<String, Vec<u8>>,
    is_attached: bool,
}

struct Play<'a> {
    cluster: &'a Cluster,
    mount: Mount<'a>,
    vdis: BTreeMap<String, Model>,
    random: Random,
    last: u64,
}

impl Play<'_> {
    fn below(&mut self, end: usize) -> usize {
        self.random.within(0..end as u64) as usize
    }

    fn next_name(&mut self, hint: &str) -> String {
        self.last += 1;
        format!("{hint}{}", self.last)
    }

    /// One of the VDIs that are so.
    fn any(&mut self, is: impl Fn(&Model) -> bool) -> Option<String> {
        let names: Vec<String> =
            self.vdis.iter().filter(|(_, vdi)| is(vdi)).map(|(name, _)| name.clone()).collect();
        (!names.is_empty()).then(|| names[self.below(names.len())].clone())
    }

    fn any_snapshot(&mut self, is: impl Fn(&Model) -> bool) -> Option<(String, String)> {
        let name = self.any(|vdi| is(vdi) && !vdi.snapshots.is_empty())?;
        let tags: Vec<String> = self.vdis[&name].snapshots.keys().cloned().collect();
        let tag = tags[self.below(tags.len())].clone();
        Some((name, tag))
    }

    fn vdi(&mut self, name: &str) -> &mut Model {
        self.vdis.get_mut(name).unwrap()
    }

    fn create(&mut self) -> Option<()> {
        if self.vdis.len() >= VDIS_MAX {
            return None;
        }
        let hint = self.next_name("disk");
        let name = self.cluster.unique(&hint);
        let size = self.random.within(1..6 * MIB);
        done(&self.mount, "create", &format!("{name} {size} block_size_shift={SHIFT}"));
        let working = Some(vec![0; size as usize]);
        self.vdis.insert(name, Model { working, ..Model::default() });
        Some(())
    }

    /// Attaches or detaches one.
    fn attach(&mut self) -> Option<()> {
        let name = self.any(|vdi| vdi.working.is_some())?;
        let was_attached = std::mem::replace(&mut self.vdi(&name).is_attached, false);
        if was_attached {
            self.mount.detach(&name);
        } else {
            self.mount.attach(&name);
            self.vdi(&name).is_attached = true;
        }
        Some(())
    }

    fn write(&mut self) -> Option<()> {
        let name = self.any(|vdi| vdi.is_attached)?;
        let size = self.vdis[&name].working.as_ref()?.len();
        let at = self.below(size);
        let len = (1 + self.below(300_000)).min(size - at);
        let bytes = self.random.bytes(len);
        self.mount.open(&name).write_all_at(&bytes, at as u64).unwrap();
        self.vdi(&name).working.as_mut()?[at..at + len].copy_from_slice(&bytes);
        Some(())
    }

    /// Makes a hole, or zeros, on whole objects and parts of them.
    fn clear(&mut self) -> Option<()> {
        let name = self.any(|vdi| vdi.is_attached)?;
        let size = self.vdis[&name].working.as_ref()?.len();
        let object = 1 << SHIFT;
        let mut at = self.below(size);
        let mut end = (at + 1 + self.below(3 * object)).min(size);
        if self.below(2) == 0 {
            (at, end) = (at / object * object, end.next_multiple_of(object).min(size));
        }
        let modes = [
            FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE,
            FallocateFlags::FALLOC_FL_ZERO_RANGE,
        ];
        let mode = modes[self.below(2)];
        let (offset, len) = (at.try_into().unwrap(), (end - at).try_into().unwrap());
        fallocate(self.mount.open(&name), mode, offset, len).unwrap();
        self.vdi(&name).working.as_mut()?[at..end].fill(0);
        Some(())
    }

    fn grow(&mut self) -> Option<()> {
        let name = self.any(|vdi| vdi.working.is_some())?;
        let is_attached = self.vdis[&name].is_attached;
        let size = self.vdis[&name].working.as_ref()?.len() as u64;
        let size = (size + self.random.within(0..2 * MIB)).min(SIZE_MAX);
        if is_attached && self.below(2) == 0 {
            self.mount.open(&name).set_len(size).unwrap();
        } else {
            done(&self.mount, "resize", &format!("{name} {size}"));
        }
        self.vdi(&name).working.as_mut()?.resize(size as usize, 0);
        Some(())
    }

    fn snapshot(&mut self) -> Option<()> {
        let name = self.any(|vdi| vdi.working.is_some())?;
        let tag = self.next_name("tag");
        done(&self.mount, "snapshot", &format!("{name} {tag}"));
        let vdi = self.vdi(&name);
        let content = vdi.working.clone()?;
        vdi.snapshots.insert(tag, content);
        Some(())
    }

    fn clone(&mut self) -> Option<()> {
        if self.vdis.len() >= VDIS_MAX {
            return None;
        }
        let (name, tag) = self.any_snapshot(|_| true)?;
        let hint = self.next_name("clone");
        let new = self.cluster.unique(&hint);
        done(&self.mount, "clone", &format!("{name}:{tag} {new}"));
        let working = Some(self.vdis[&name].snapshots[&tag].clone());
        self.vdis.insert(new, Model { working, ..Model::default() });
        Some(())
    }

    fn rollback(&mut self) -> Option<()> {
        let (name, tag) = self.any_snapshot(|vdi| !vdi.is_attached)?;
        done(&self.mount, "rollback", &format!("{name}:{tag}"));
        let vdi = self.vdi(&name);
        vdi.working = vdi.snapshots.get(&tag).cloned();
        Some(())
    }

    fn delete(&mut self) -> Option<()> {
        if self.below(2) == 0 {
            let (name, tag) = self.any_snapshot(|_| true)?;
            done(&self.mount, "delete", &format!("{name}:{tag}"));
            self.vdi(&name).snapshots.remove(&tag);
        } else {
            let name = self.any(|vdi| vdi.working.is_some() && !vdi.is_attached)?;
            done(&self.mount, "delete", &name);
            self.vdi(&name).working = None;
        }
        self.vdis.retain(|_, vdi| vdi.working.is_some() || !vdi.snapshots.is_empty());
        Some(())
    }

    fn step(&mut self) {
        let _ = match self.below(24) {
            0..2 => self.create(),
            2..4 => self.attach(),
            4..11 => self.write(),
            11..15 => self.clear(),
            15..17 => self.grow(),
            17..19 => self.snapshot(),
            19 => self.clone(),
            20 => self.rollback(),
            21..23 => self.delete(),
            _ => self.compare(),
        };
    }

    /// Everything is as the model has it, as seen without sheepfs.
    fn compare(&mut self) -> Option<()> {
        let mut wire = self.cluster.wire();
        for (name, vdi) in &self.vdis {
            if let Some(working) = &vdi.working {
                let vid = wire.vid(name);
                assert!(wire.content(vid) == *working, "{name}\n{}", self.mount.log());
            }
            for (tag, content) in &vdi.snapshots {
                let vid = wire.look_up(&snapshot_ref(name, tag));
                assert!(wire.content(vid) == *content, "{name}:{tag}\n{}", self.mount.log());
            }
            if vdi.is_attached {
                let found = fs::read(self.mount.volume(name)).unwrap();
                assert!(vdi.working.as_ref() == Some(&found), "volume {name}");
            }
        }
        let list = self.mount.read("vdi/list");
        let ours = |line: &&str| line.split_whitespace().any(|word| self.vdis.contains_key(word));
        let there =
            self.vdis.values().map(|vdi| usize::from(vdi.working.is_some()) + vdi.snapshots.len());
        assert_eq!(list.lines().filter(ours).count(), there.sum::<usize>(), "{list}");
        Some(())
    }

    /// Deletes everything.
    fn end(mut self) {
        for (name, vdi) in std::mem::take(&mut self.vdis) {
            if vdi.is_attached {
                self.mount.detach(&name);
            }
            for tag in vdi.snapshots.keys() {
                done(&self.mount, "delete", &format!("{name}:{tag}"));
            }
            if vdi.working.is_some() {
                done(&self.mount, "delete", &name);
            }
        }
    }
}

fn play(options: &[&str]) {
    // Its VDIs go through the tree, so on a real cluster none is left to be deleted.
    let cluster = Cluster::start();
    let mount = Mount::start(&cluster, options);
    let random = Random::announced();
    let mut play = Play { cluster: &cluster, mount, vdis: BTreeMap::new(), random, last: 0 };
    for _ in 0..rounds(150, 3000) {
        play.step();
    }
    play.compare();
    play.end();
}

#[test]
fn vdis_are_what_a_model_of_them_is() {
    play(&[]);
}

#[test]
fn so_they_are_through_both_caches() {
    play(&["-k", "-o"]);
}
