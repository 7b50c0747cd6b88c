//! VDIs that were found, in the order in which a listing shows them.

use crate::vdi_tree::{Place, cookie_of};
use sheepfs::text::report::VdiReport;
use sheepfs::wire::VdiId;

/// VDIs that were found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// By the cookie of the name, so that each name's are together; the working one first.
    vdis: Vec<(u64, VdiReport)>,
    /// Vids, and where in the other they are.
    by_vid: Vec<(u32, usize)>,
}

/// All VDIs of one name that were found.
#[derive(Clone, Copy, Debug)]
pub struct Family<'a> {
    vdis: &'a [(u64, VdiReport)],
}

impl Census {
    /// Takes what a worker says; what can't be a VDI's is left out.
    pub fn new(found: Vec<VdiReport>) -> Self {
        let is_one = |vdi: &VdiReport| {
            VdiId::new(vdi.header.vdi_id).is_some() && !vdi.header.name.is_empty()
        };
        let mut vdis: Vec<_> = found
            .into_iter()
            .filter(is_one)
            .map(|vdi| (cookie_of(&vdi.header.name), vdi))
            .collect();
        vdis.sort_by(|(one_cookie, one), (other_cookie, other)| {
            let [one, other] = [one, other].map(|vdi| {
                let header = &vdi.header;
                (&header.name, header.is_snapshot(), header.snap_id, header.vdi_id)
            });
            one_cookie.cmp(other_cookie).then(one.cmp(&other))
        });
        let mut by_vid: Vec<_> =
            vdis.iter().enumerate().map(|(at, (_, vdi))| (vdi.header.vdi_id, at)).collect();
        by_vid.sort_unstable();
        Self { vdis, by_vid }
    }

    /// The VDI of that vid.
    pub fn vdi(&self, vid: VdiId) -> Option<&VdiReport> {
        let at = self.by_vid.binary_search_by_key(&vid.get(), |(vid, _)| *vid).ok()?;
        self.by_vid.get(at).and_then(|(_, at)| self.vdis.get(*at)).map(|(_, vdi)| vdi)
    }

    /// All VDIs of a name.
    pub fn family(&self, name: &[u8]) -> Option<Family<'_>> {
        let cookie = cookie_of(name);
        let from = self.vdis.partition_point(|(at, _)| *at < cookie);
        let mut families = families(&self.vdis[from..]);
        families.find(|family| family.name() == name)
    }

    /// The families behind a cookie, in order, each with its own.
    pub fn behind(&self, cookie: u64) -> impl Iterator<Item = (u64, Family<'_>)> {
        let from = self.vdis.partition_point(|(at, _)| *at <= cookie);
        families(&self.vdis[from..]).map(|family| (family.vdis[0].0, family))
    }
}

/// Cuts sorted VDIs at the names.
fn families(vdis: &[(u64, VdiReport)]) -> impl Iterator<Item = Family<'_>> {
    vdis.chunk_by(|(_, one), (_, other)| one.header.name == other.header.name)
        .map(|vdis| Family { vdis })
}

impl<'a> Family<'a> {
    /// Its name.
    pub fn name(&self) -> &'a [u8] {
        self.vdis.first().map_or(&[], |(_, vdi)| &vdi.header.name)
    }

    /// The VDI that can be written.
    pub fn working(&self) -> Option<&'a VdiReport> {
        self.all().rfind(|vdi| !vdi.header.is_snapshot())
    }

    /// Its snapshots by ascending number; of two of one number, the one that the cluster finds.
    pub fn snapshots(&self) -> impl Iterator<Item = &'a VdiReport> {
        let snapshots = self.vdis.chunk_by(|(_, one), (_, other)| {
            one.header.snap_id == other.header.snap_id
                && one.header.is_snapshot() == other.header.is_snapshot()
        });
        let last = |same: &'a [(u64, VdiReport)]| same.last().map(|(_, vdi)| vdi);
        snapshots.filter_map(last).filter(|vdi| vdi.header.is_snapshot())
    }

    /// Its snapshot of that number.
    pub fn snapshot(&self, number: u32) -> Option<&'a VdiReport> {
        self.snapshots().find(|vdi| vdi.header.snap_id == number)
    }

    /// The directory, and the VDI that it has its number and times from.
    pub fn dir(&self) -> Option<(Place, &'a VdiReport)> {
        let place = |vdi: &VdiReport| VdiId::new(vdi.header.vdi_id);
        match self.working() {
            Some(vdi) => Some((Place::Name(place(vdi)?), vdi)),
            None => {
                let newest = self.all().next_back()?;
                Some((Place::Remnant(place(newest)?), newest))
            }
        }
    }

    fn all(&self) -> impl DoubleEndedIterator<Item = &'a VdiReport> {
        self.vdis.iter().map(|(_, vdi)| vdi)
    }
}

/// For tests: a VDI, or with an `id` above 0 a snapshot.
#[cfg(test)]
pub fn found(vid: u32, name: &[u8], id: u32) -> VdiReport {
    let header = sheepfs::wire::inode::InodeHeader {
        name: name.to_vec(),
        tag: Vec::new(),
        create_time: u64::from(vid) << 32,
        snap_ctime: u64::from(id) << 32,
        vdi_size: 1 << 20,
        copy_policy: 0,
        store_policy: 0,
        nr_copies: 1,
        block_size_shift: 22,
        snap_id: id.max(1),
        vdi_id: vid,
        parent_vdi_id: 0,
    };
    VdiReport { header, usage: sheepfs::wire::cluster::BlockUsage::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vid(number: u32) -> VdiId {
        VdiId::new(number).unwrap()
    }

    #[test]
    fn families_are_found_by_name_and_by_vid() {
        let census = Census::new(vec![
            found(9, b"b", 0),
            found(3, b"a", 2),
            found(2, b"a", 1),
            found(4, b"a", 0),
            found(7, b"c", 5),
            // What is no VDI's.
            found(0, b"x", 0),
            found(1 << 24, b"x", 0),
            found(11, b"", 0),
        ]);
        let family = census.family(b"a").unwrap();
        assert_eq!(family.working().unwrap().header.vdi_id, 4);
        let vids = |family: Family| -> Vec<u32> {
            family.snapshots().map(|vdi| vdi.header.vdi_id).collect()
        };
        assert_eq!(vids(family), [2, 3]);
        assert_eq!(family.dir().unwrap().0, Place::Name(vid(4)));
        assert_eq!(family.snapshot(2).unwrap().header.vdi_id, 3);
        assert!(family.snapshot(9).is_none());
        assert_eq!(census.family(b"c").unwrap().dir().unwrap().0, Place::Remnant(vid(7)));
        assert_eq!(census.vdi(vid(3)).unwrap().header.name, b"a");
        assert!(census.family(b"x").is_none() && census.family(b"").is_none());
        assert!(census.vdi(vid(11)).is_none());
    }

    #[test]
    fn of_two_snapshots_of_one_number_the_later_counts() {
        let census = Census::new(vec![found(2, b"a", 1), found(8, b"a", 1), found(1, b"a", 0)]);
        let family = census.family(b"a").unwrap();
        assert_eq!(family.snapshots().count(), 1);
        assert_eq!(family.snapshot(1).unwrap().header.vdi_id, 8);
        assert_eq!(family.working().unwrap().header.vdi_id, 1);
    }

    #[test]
    fn a_listing_goes_on_where_it_was_whatever_comes_and_goes() {
        let names: Vec<Vec<u8>> = (0..100).map(|n: u32| format!("disk{n}").into_bytes()).collect();
        let census = |moved: u32| {
            let vdis = names.iter().zip(1..).map(|(name, vid)| found(vid + moved, name, 0));
            Census::new(vdis.collect())
        };
        // A snapshot of each moves all names to other vids.
        let (before, after) = (census(0), census(1000));
        let first: Vec<_> = before.behind(2).take(40).collect();
        let rest = after.behind(first[39].0);
        let mut seen: Vec<_> = first
            .iter()
            .map(|(_, f)| f.name().to_vec())
            .chain(rest.map(|(_, f)| f.name().to_vec()))
            .collect();
        seen.sort();
        let mut expected = names.clone();
        expected.sort();
        assert_eq!(seen, expected);
    }
}
