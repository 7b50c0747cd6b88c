//! `vdi/tree/`: what the kernel asks of it waits, parked, for what the cluster says, unless that
//! was said a moment ago ([`crate::catalog`]). Both ways end in [`Browse::complete`].

use super::SheepFs;
use crate::attr::{Look, NAME_TTL, TREE_TTL};
use crate::census::{Census, Family};
use crate::events::Event;
use crate::handles::handle_of;
use crate::texts::{self, CONTROL_OPEN, Texts};
use crate::tree::{VDI_INO, VDI_TREE_INO};
use crate::vdi_tree::{Child, Place, file_name, vdi_name};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Generation, INodeNo, OpenAccMode, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyEntry, ReplyOpen, Request,
};
use jiff::tz::TimeZone;
use sheepfs::ipc::Search;
use sheepfs::text::report::VdiReport;
use sheepfs::text::{VdiFact, vdi_fact};
use sheepfs::wire::VdiId;
use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::time::{Instant, SystemTime};

/// Something that the kernel waits for.
#[derive(Debug)]
pub struct Browse {
    wanted: Wanted,
    look: Look,
}

#[derive(Debug)]
enum Wanted {
    /// The directory of a name.
    Name(Vec<u8>, ReplyEntry),
    /// The snapshot of that number, of the family of a vid.
    Snapshot(VdiId, u32, ReplyEntry),
    /// A file of a vid.
    Fact(VdiId, VdiFact, ReplyEntry),
    Attr(Place, ReplyAttr),
    /// All names, behind a cookie.
    Names(u64, ReplyDirectory),
    /// What is in a directory, behind a cookie.
    List(Place, u64, ReplyDirectory),
    Open(VdiId, VdiFact, FileHandle, ReplyOpen),
    Read(VdiId, VdiFact, FileHandle, Range<u64>, ReplyData),
}

impl SheepFs {
    /// Whether what is in that directory is looked up in the cluster.
    pub fn is_browsed(parent: INodeNo) -> bool {
        parent.0 == VDI_TREE_INO || Place::of(parent.0).is_some()
    }

    pub fn browse_name(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.as_encoded_bytes();
        let wanted = match Place::of(parent.0) {
            None => vdi_name(name).map(Ok),
            Some(place) => Child::parse(name).map(|child| Err((place, child))),
        };
        match wanted {
            Some(Ok(name)) => {
                self.browse(req, Search::Named(name.clone()), Wanted::Name(name, reply));
            }
            Some(Err((place, Child::Fact(fact)))) if place.has_facts() => {
                let vid = place.vid();
                self.browse(req, Search::Vdi(vid.get()), Wanted::Fact(vid, fact, reply));
            }
            Some(Err((place, Child::Snapshot(number)))) if place.has_snapshots() => {
                let vid = place.vid();
                let wanted = Wanted::Snapshot(vid, number, reply);
                self.browse(req, Search::FamilyOf(vid.get()), wanted);
            }
            Some(Err(_)) | None => reply.error(Errno::ENOENT),
        }
    }

    pub fn browse_attr(&self, req: &Request, place: Place, reply: ReplyAttr) {
        self.browse(req, Search::Vdi(place.vid().get()), Wanted::Attr(place, reply));
    }

    pub fn browse_list(&self, req: &Request, ino: INodeNo, cookie: u64, reply: ReplyDirectory) {
        let Some(place) = Place::of(ino.0) else {
            return self.browse(req, Search::All, Wanted::Names(cookie, reply));
        };
        let search = if place.has_snapshots() { Search::FamilyOf } else { Search::Vdi };
        self.browse(req, search(place.vid().get()), Wanted::List(place, cookie, reply));
    }

    /// What a file says is what the cluster says now.
    pub fn browse_open(&self, req: &Request, place: Place, mode: OpenAccMode, reply: ReplyOpen) {
        match place {
            Place::Fact(..) if mode != OpenAccMode::O_RDONLY => reply.error(Errno::EACCES),
            Place::Fact(vid, fact) => {
                let wanted = Wanted::Open(vid, fact, handle_of(req.unique()), reply);
                self.browse(req, search_for(vid, fact), wanted);
            }
            Place::Name(_) | Place::Remnant(_) | Place::Snapshot(_) => reply.error(Errno::EISDIR),
        }
    }

    /// A handle that a predecessor gave gets its text now.
    pub fn browse_read(
        &self,
        req: &Request,
        place: Place,
        handle: FileHandle,
        range: Range<u64>,
        reply: ReplyData,
    ) {
        let Place::Fact(vid, fact) = place else { return reply.error(Errno::EISDIR) };
        match self.texts.get(handle) {
            Some(text) => reply.data(texts::slice(&text, range)),
            None => {
                let wanted = Wanted::Read(vid, fact, handle, range, reply);
                self.browse(req, search_for(vid, fact), wanted);
            }
        }
    }

    fn browse(&self, req: &Request, search: Search, wanted: Wanted) {
        let is_afresh = matches!(wanted, Wanted::Open(..) | Wanted::Read(..));
        let browse = Browse { wanted, look: self.look };
        let known = self.shared.catalog().find(&search, Instant::now());
        match known.filter(|_| !is_afresh) {
            Some(census) => browse.complete(&census, &self.texts),
            None => {
                let (noted, browse) = (self.uniques.note(req.unique()), Box::new(browse));
                self.events.tell(Event::Browse { search, is_afresh, browse, noted });
            }
        }
    }
}

fn search_for(vid: VdiId, fact: VdiFact) -> Search {
    match fact {
        VdiFact::Used | VdiFact::Shared => Search::WithUsage(vid.get()),
        VdiFact::Parent => Search::WithParent(vid.get()),
        VdiFact::Vid
        | VdiFact::Size
        | VdiFact::Copies
        | VdiFact::BlockSizeShift
        | VdiFact::Created
        | VdiFact::Frozen
        | VdiFact::Tag
        | VdiFact::Id => Search::Vdi(vid.get()),
    }
}

impl Browse {
    /// Answers the kernel from what was found.
    pub fn complete(self, census: &Census, texts: &Texts) {
        let Self { wanted, look } = self;
        let attr = |place: Place, vdi: &VdiReport| look.of_place(place, vdi.header.create_time);
        let family_of =
            |vid: VdiId| census.vdi(vid).and_then(|vdi| census.family(&vdi.header.name));
        match wanted {
            Wanted::Name(name, reply) => {
                let found = census.family(&name).and_then(|family| family.dir());
                answer_entry(found.map(|(place, vdi)| attr(place, vdi)), reply);
            }
            Wanted::Snapshot(vid, number, reply) => {
                let found = family_of(vid).and_then(|family| family.snapshot(number));
                let place = |vdi: &VdiReport| VdiId::new(vdi.header.vdi_id).map(Place::Snapshot);
                let found = found.and_then(|vdi| Some(attr(place(vdi)?, vdi)));
                answer_entry(found, reply);
            }
            Wanted::Fact(vid, fact, reply) => {
                let found = census.vdi(vid).map(|vdi| attr(Place::Fact(vid, fact), vdi));
                answer_entry(found, reply);
            }
            Wanted::Attr(place, reply) => match census.vdi(place.vid()) {
                Some(vdi) => reply.attr(&TREE_TTL, &attr(place, vdi)),
                None => reply.error(Errno::ENOENT),
            },
            Wanted::Names(cookie, reply) => answer_list(names(census, cookie), reply),
            Wanted::List(place, cookie, reply) => match family_of(place.vid()) {
                Some(family) => answer_list(contents(place, family, cookie), reply),
                None => reply.error(Errno::ENOENT),
            },
            Wanted::Open(vid, fact, handle, reply) => match text_of(census, vid, fact) {
                Some(text) => {
                    texts.open(handle, text);
                    reply.opened(handle, CONTROL_OPEN);
                }
                None => reply.error(Errno::ENOENT),
            },
            Wanted::Read(vid, fact, handle, range, reply) => match text_of(census, vid, fact) {
                Some(text) => reply.data(texts::slice(&texts.open(handle, text), range)),
                // It was there when it was opened.
                None => reply.error(Errno::ESTALE),
            },
        }
    }

    /// Nothing could be found out.
    pub fn refuse(self, errno: Errno) {
        match self.wanted {
            Wanted::Name(_, reply) | Wanted::Snapshot(_, _, reply) | Wanted::Fact(_, _, reply) => {
                reply.error(errno)
            }
            Wanted::Attr(_, reply) => reply.error(errno),
            Wanted::Names(_, reply) | Wanted::List(_, _, reply) => reply.error(errno),
            Wanted::Open(_, _, _, reply) => reply.error(errno),
            Wanted::Read(_, _, _, _, reply) => reply.error(errno),
        }
    }
}

fn text_of(census: &Census, vid: VdiId, fact: VdiFact) -> Option<Vec<u8>> {
    let vdi = census.vdi(vid)?;
    let parent = VdiId::new(vdi.header.parent_vdi_id).and_then(|parent| census.vdi(parent));
    Some(vdi_fact(fact, vdi, parent.map(|parent| &parent.header), &TimeZone::system()))
}

fn answer_entry(found: Option<FileAttr>, reply: ReplyEntry) {
    match found {
        Some(attr) => reply.entry_with_ttls(&TREE_TTL, &NAME_TTL, &attr, Generation(0)),
        None => reply.error(Errno::ENOENT),
    }
}

/// An entry of a directory: its cookie, inode number, kind and name.
type Entry = (u64, u64, FileType, OsString);

fn answer_list(entries: impl Iterator<Item = Entry>, mut reply: ReplyDirectory) {
    for (cookie, ino, kind, name) in entries {
        if reply.add(INodeNo(ino), cookie, kind, name) {
            break;
        }
    }
    reply.ok();
}

fn dots(ino: u64, parent: u64) -> [Entry; 2] {
    [(1, ino, FileType::Directory, ".".into()), (2, parent, FileType::Directory, "..".into())]
}

/// All names behind a cookie; one that is no file name is not shown.
fn names(census: &Census, cookie: u64) -> impl Iterator<Item = Entry> {
    let entry = |(cookie, family): (u64, Family)| {
        let (place, _) = family.dir()?;
        Some((cookie, place.ino(), place.kind(), file_name(family.name())?))
    };
    let dots = dots(VDI_TREE_INO, VDI_INO).into_iter().filter(move |dot| dot.0 > cookie);
    dots.chain(census.behind(cookie).filter_map(entry))
}

/// What is in the directory of a name or of a snapshot, behind a cookie.
fn contents(place: Place, family: Family, cookie: u64) -> impl Iterator<Item = Entry> {
    // Of a snapshot's directory the parent is that of its name now.
    let name = family.dir().map_or(VDI_TREE_INO, |(name, _)| name.ino());
    let parent = if place.has_snapshots() { VDI_TREE_INO } else { name };
    let fact = move |fact: VdiFact| {
        let file = Place::Fact(place.vid(), fact);
        (Child::Fact(fact).cookie(), file.ino(), file.kind(), fact.name().into())
    };
    let snapshot = |vdi: &VdiReport| {
        let number = vdi.header.snap_id;
        let dir = Place::Snapshot(VdiId::new(vdi.header.vdi_id)?);
        Some((Child::Snapshot(number).cookie(), dir.ino(), dir.kind(), number.to_string().into()))
    };
    let facts = VdiFact::ALL.into_iter().filter(move |_| place.has_facts()).map(fact);
    let snapshots = family.snapshots().filter(move |_| place.has_snapshots());
    let mut all: Vec<Entry> = dots(place.ino(), parent)
        .into_iter()
        .chain(facts)
        .chain(snapshots.filter_map(snapshot))
        .filter(|entry| entry.0 > cookie)
        .collect();
    all.sort_by_key(|entry| entry.0);
    all.into_iter()
}

impl Look {
    /// Of something in the tree of VDIs, by the time of its VDI.
    fn of_place(&self, place: Place, created: u64) -> FileAttr {
        self.of_made(place.ino(), place.kind(), place.mode(), crate::attr::time_of(created))
    }

    /// The same, before the cluster is asked.
    pub fn of_place_now(&self, place: Place) -> FileAttr {
        self.of_made(place.ino(), place.kind(), place.mode(), SystemTime::now())
    }
}
