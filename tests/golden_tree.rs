//! The index tree of hyper volumes against the recordings: what sheepfs would write for each
//! block that `dog` allocated there is, byte for byte, what `dog` wrote, but that a write of
//! the inode begins at 4660 and not with the header (protocol 5.4), and that the padding of
//! root entries is zeros.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/golden.rs"]
mod golden;

use golden::{Exchange, Transcript};
use sheepfs::wire::btree::{Entry, Head, Leaf, Limits, Root, Top, Tree, Whole, Write};
use sheepfs::wire::inode::{INODE_HEADER_LEN, btree_counter};
use sheepfs::wire::oid::ObjectKind;
use sheepfs::wire::request::Payload;
use sheepfs::wire::{ObjectId, Opcode, Request, RequestHeader, VdiId};

/// A recorded change of an object.
struct Change {
    header: RequestHeader,
    oid: ObjectId,
    payload: Vec<u8>,
}

/// One command of `dog`: the inode that it read, the leaves that it read, what it changed.
struct Command {
    inode: Vec<u8>,
    leaves: Vec<(ObjectId, Vec<u8>)>,
    changes: Vec<Change>,
}

impl Command {
    /// The block that got an object.
    fn block(&self) -> u32 {
        let data = |change: &&Change| change.oid.kind() == ObjectKind::Data;
        self.changes.iter().find(data).expect("an object was made").oid.index()
    }

    fn writes_to(&self, kind: ObjectKind) -> Vec<&Change> {
        self.changes.iter().filter(|change| change.oid.kind() == kind).collect()
    }

    /// The node in the inode, as the last long write left it.
    fn written_top(&self) -> &[u8] {
        let inode = self.writes_to(ObjectKind::Inode);
        let long = inode.iter().find(|change| change.payload.len() > INODE_HEADER_LEN);
        &long.expect("the inode was written").payload[INODE_HEADER_LEN..]
    }

    fn tree(&self) -> Tree {
        let vid = VdiId::new(self.changes[0].oid.vid_raw()).unwrap();
        let node = &self.inode[INODE_HEADER_LEN..];
        Tree::decode(vid, Limits::REAL, btree_counter(&self.inode), node).unwrap()
    }
}

fn commands(name: &str) -> Vec<Command> {
    let scenes = Transcript::load(name).scenes();
    let commands = scenes.iter().map(|scene| {
        let mut command = Command { inode: Vec::new(), leaves: Vec::new(), changes: Vec::new() };
        for Exchange { req, rsp } in &scene.exchanges {
            let header = RequestHeader::decode(&req.hdr);
            let oid = ObjectId::from_raw(header.obj().oid);
            let answer = rsp.as_ref().map(|rsp| rsp.payload.bytes()).unwrap_or_default();
            match (Opcode::from_code(header.opcode), oid.kind()) {
                (Some(Opcode::ReadObj), ObjectKind::Inode) if command.inode.is_empty() => {
                    command.inode = answer;
                }
                (Some(Opcode::ReadObj), ObjectKind::Btree) => command.leaves.push((oid, answer)),
                (Some(Opcode::WriteObj | Opcode::CreateAndWriteObj), _) => {
                    command.changes.push(Change { header, oid, payload: req.payload.bytes() });
                }
                _ => {}
            }
        }
        command
    });
    commands.filter(|command| !command.writes_to(ObjectKind::Data).is_empty()).collect()
}

const FRESH: Whole = Whole { top: false, leaf: false };

fn entry(command: &Command) -> Entry {
    Entry { block: command.block(), owner: command.changes[0].oid.vid_raw() }
}

#[test]
fn entries_of_a_leaf_in_the_inode_are_written_as_dog_does() {
    let commands = commands("20-hyper-volume");
    assert_eq!(commands.iter().map(Command::block).collect::<Vec<_>>(), [5, 2]);
    for command in &commands {
        let step = command.tree().set(None, &[entry(command)], FRESH).unwrap();
        assert_eq!(step.done, 1);
        assert_eq!(step.writes, [Write::Top(command.written_top().to_vec())]);
    }
}

#[test]
fn a_full_leaf_is_split_as_dog_does() {
    let command = &commands("21-hyper-root-split")[0];
    let mut tree = command.tree();
    let split = tree.set(None, &[entry(command)], FRESH).unwrap();
    assert_eq!((split.done, split.writes.len()), (0, 4));
    assert_eq!(split.writes[0], Write::Counter(2), "before a number is used");
    let created: Vec<_> = command
        .writes_to(ObjectKind::Btree)
        .into_iter()
        .filter(|change| change.header.opcode == Opcode::CreateAndWriteObj.code())
        .collect();
    assert_eq!(created.len(), 2);
    for (write, change) in split.writes[1..3].iter().zip(created) {
        let Write::Create(oid, node) = write else { panic!("{write:?}") };
        assert_eq!((*oid, &node[..]), (change.oid, &change.payload[..node.len()]));
        assert!(change.payload[node.len()..].iter().all(|byte| *byte == 0));
    }
    // The new entry goes to the lower half.
    let oid = tree.leaf_of(command.block()).unwrap();
    let mut leaf = Leaf::decode(&command.leaves[0].1).unwrap();
    assert_eq!(oid, command.leaves[0].0);
    let whole = Whole { top: true, leaf: true };
    let step = tree.set(Some(&mut leaf), &[entry(command)], whole).unwrap();
    let rewritten = command
        .writes_to(ObjectKind::Btree)
        .into_iter()
        .find(|change| change.header.opcode == Opcode::WriteObj.code())
        .unwrap();
    let [Write::Leaf(to, 0, node)] = &step.writes[..] else { panic!("{:?}", step.writes) };
    assert_eq!((*to, &node[..]), (rewritten.oid, &rewritten.payload[..node.len()]));
    let Top::Root(root) = tree.top() else { panic!("two levels") };
    assert_eq!(root, &Root::decode(command.written_top()).unwrap());
    assert_eq!(root.encode().len(), command.written_top().len());
}

#[test]
fn a_block_behind_the_last_key_is_appended_as_dog_does() {
    let command = &commands("21-hyper-root-split")[1];
    let mut tree = command.tree();
    let oid = tree.leaf_of(command.block()).unwrap();
    assert_eq!(oid, command.leaves[0].0);
    let mut leaf = Leaf::decode(&command.leaves[0].1).unwrap();
    let step = tree.set(Some(&mut leaf), &[entry(command)], FRESH).unwrap();
    let written = command.writes_to(ObjectKind::Btree)[0];
    let [Write::Leaf(to, 0, node), Write::Top(top)] = &step.writes[..] else {
        panic!("{:?}", step.writes);
    };
    assert_eq!((*to, &node[..]), (written.oid, &written.payload[..node.len()]));
    assert_eq!(Root::decode(top).unwrap(), Root::decode(command.written_top()).unwrap());
}

/// Hazard 42: every write of the node begins in the header, as the right one of the two
/// that were recorded.
#[test]
fn a_write_of_the_node_begins_before_the_index() {
    let exchanges = Transcript::load("36-hyper-index-hazard").exchanges();
    let writes = exchanges.iter().filter(|exchange| {
        let header = RequestHeader::decode(&exchange.req.hdr);
        let is_inode = ObjectId::from_raw(header.obj().oid).kind() == ObjectKind::Inode;
        is_inode && Opcode::from_code(header.opcode) == Some(Opcode::WriteObj)
    });
    let right = writes.map(|exchange| &exchange.req).next().unwrap();
    let header = RequestHeader::decode(&right.hdr);
    let vid = VdiId::new(ObjectId::from_raw(header.obj().oid).vid_raw()).unwrap();
    let mut tree = Tree::decode(vid, Limits::REAL, 0, &[0; 8]).unwrap();
    let step = tree.set(None, &[Entry { block: 3, owner: vid.get() }], FRESH).unwrap();
    let Write::Top(node) = &step.writes[0] else { panic!("{:?}", step.writes) };
    let ours = Request::write_tree_top(vid, node).unwrap();
    assert_eq!(ours.header(header.id).encode(), right.hdr[..]);
    assert_eq!(ours.payload(), &Payload::Bytes(right.payload.bytes().into()));
    // And the largest node ends where the index does.
    let full = vec![0; (8 + 8 * Limits::REAL.leaf) as usize];
    assert_eq!(Request::write_tree_top(vid, &full).unwrap().payload_len(), 4 + 4_194_304);
    assert_eq!(Request::write_tree_top(vid, &vec![0; full.len() + 1]), None);
    assert_eq!(Head::Leaf(Limits::REAL.leaf).used_len(), 4_194_304);
}
