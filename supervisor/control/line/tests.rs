use super::*;

fn created(line: &str) -> Result<(String, NewShape), LineError> {
    match parse(LifeFile::Create, line.as_bytes())? {
        Errand::Create { name, shape } => Ok((name.to_string(), shape)),
        other => panic!("{other:?}"),
    }
}

fn shape(size: u64) -> NewShape {
    NewShape { size, ..NewShape::default() }
}

#[test]
fn a_new_vdi_is_a_name_a_size_and_options_in_any_order() {
    assert_eq!(created("vol 10G\n"), Ok(("vol".to_owned(), shape(10 << 30))));
    assert_eq!(created("  my big disk   512M "), Ok(("my big disk".to_owned(), shape(512 << 20))));
    assert_eq!(created("a=b 1"), Ok(("a=b".to_owned(), shape(1))));
    let (_, all) = created("v 1M block_size_shift=20 copies=2").unwrap();
    assert_eq!((all.copies, all.copy_policy, all.block_size_shift), (2, 0, 20));
    let (_, coded) = created("v 1M copies=4:2").unwrap();
    assert_eq!((coded.copies, coded.copy_policy), (6, 0x22));
    assert_eq!(created("v 1M copies=16:15").unwrap().1.copies, 31);
    assert!(created("v 1T hyper").unwrap().1.hyper);
}

#[test]
fn what_is_wrong_with_a_new_vdi_is_said() {
    let form = LineError::Form(LifeFile::Create);
    for (line, why) in [
        ("", form),
        ("vol", form),
        ("10G copies=2", form),
        ("vol ten", LineError::NoSize),
        ("vol 1G thin", LineError::NoSize),
        ("vol 99999999999999999999", LineError::Size(SizeError::TooLarge)),
        ("vol 10X", LineError::Size(SizeError::Unit)),
        ("vol 0", LineError::NoBytes),
        ("vol 1G copies=0", LineError::Copies),
        ("vol 1G copies=32", LineError::Copies),
        ("vol 1G copies=3:1", LineError::Copies),
        ("vol 1G copies=4:0", LineError::Copies),
        ("vol 1G copies=4:16", LineError::Copies),
        ("vol 1G copies=two", LineError::Copies),
        ("vol 1G block_size_shift=19", LineError::Shift),
        ("vol 1G block_size_shift=32", LineError::Shift),
        ("vol 1G block_size_shift=20 hyper", LineError::Shift),
        ("vol 1G prealloc=1", LineError::Option),
        ("a/b 1G", LineError::Name(NameError::NotAFileName)),
        ("one 1G\ntwo 1G", LineError::Name(NameError::NotAFileName)),
        ("vol copies=2 1G", LineError::OptionFirst),
        ("vol block_size_shift=22 1G copies=2", LineError::OptionFirst),
    ] {
        assert_eq!(created(line), Err(why), "{line:?}");
    }
    assert_eq!(parse(LifeFile::Create, b"\xff 1G"), Err(NameError::NotUtf8.into()));
}

#[test]
fn a_snapshot_has_a_name_and_a_tag_that_can_be_asked_for() {
    let made = parse(LifeFile::Snapshot, b"my disk monday\n").unwrap();
    let (name, tag) = (VdiName::new("my disk").unwrap(), VdiTag::new("monday").unwrap());
    assert_eq!(made, Errand::Snapshot { name, tag });
    let refused = |line: &[u8]| parse(LifeFile::Snapshot, line).unwrap_err();
    assert_eq!(refused(b"disk"), LineError::Form(LifeFile::Snapshot));
    assert_eq!(refused(b"disk 7"), LineError::TagIsNumber);
    assert_eq!(refused(b"disk a:b"), LineError::TagHasColon);
    assert_eq!(refused(b"disk a/b"), LineError::Tag(NameError::NotAFileName));
    let long = [b"disk ", &[b'x'; 256][..]].concat();
    assert_eq!(refused(&long), LineError::Tag(NameError::TooLong));
    assert!(parse(LifeFile::Snapshot, &long[..260]).is_ok());
}

#[test]
fn clones_and_rollbacks_begin_with_a_snapshot() {
    let Ok(Errand::Clone { from, new }) = parse(LifeFile::Clone, b"disk:3 copy") else {
        panic!("no clone")
    };
    assert_eq!(from[0].generation, Generation::SnapId(3));
    assert_eq!(from[1].generation, Generation::Tag(VdiTag::new("3").unwrap()));
    assert_eq!(new.as_str(), "copy");
    assert_eq!(parse(LifeFile::Clone, b"disk copy"), Err(LineError::NoSnapshot));
    assert_eq!(parse(LifeFile::Clone, b"disk:s"), Err(LineError::Form(LifeFile::Clone)));
    assert_eq!(parse(LifeFile::Rollback, b"disk"), Err(LineError::NoSnapshot));
    assert!(
        matches!(parse(LifeFile::Rollback, b"disk:s\n"), Ok(Errand::Rollback { to }) if to.len() == 1)
    );
}

#[test]
fn deleting_takes_what_mounting_takes_and_resizing_a_size() {
    let name = VolumeName::parse(b"my disk:s").unwrap();
    assert_eq!(parse(LifeFile::Delete, b" my disk:s \n"), Ok(Errand::Delete { name }));
    assert_eq!(parse(LifeFile::Delete, b"\n"), Err(LineError::Form(LifeFile::Delete)));
    let name = VdiName::new("disk").unwrap();
    assert_eq!(parse(LifeFile::Resize, b"disk 2G"), Ok(Errand::Resize { name, size: 2 << 30 }));
    assert_eq!(parse(LifeFile::Resize, b"disk"), Err(LineError::Form(LifeFile::Resize)));
}

#[test]
fn an_error_says_what_to_write() {
    let said = LineError::Form(LifeFile::Clone).to_string();
    assert_eq!(said, "NAME:TAG NEW is wanted");
}
