//! What each line of arguments means, and which are refused.

use super::*;
use clap::CommandFactory;
use clap::error::ErrorKind;

fn read(line: &str) -> Result<Options, clap::Error> {
    Options::read(line.split_whitespace().map(Into::into))
}

fn refused_words(words: &[&str]) -> ErrorKind {
    Options::read(words.iter().map(Into::into)).unwrap_err().kind()
}

fn refused(line: &str) -> ErrorKind {
    read(line).map(|options| panic!("{line} means {options:?}")).unwrap_err().kind()
}

#[test]
fn a_mount_point_is_enough() {
    let options = read("sheepfs /mnt").unwrap();
    assert_eq!(options.address.host, "127.0.0.1");
    assert_eq!((options.sheep_port(), options.mode), (7000, None));
    assert_eq!((options.object_cache, options.cache_size), (false, None));
    assert!(!options.in_foreground() && !options.page_cache && !options.allow_other);
    assert_eq!((options.uid, options.gid, options.local), (None, None, None));
}

#[test]
fn the_options_of_the_original_work_short_and_long() {
    let short = read("sheepfs -a 10.0.0.1 -p 7001 -d -f -k -o /mnt").unwrap();
    let long = "sheepfs --address 10.0.0.1 --port 7001 --debug --foreground --pagecache --objectcache /mnt";
    assert_eq!(format!("{short:?}"), format!("{:?}", read(long).unwrap()));
    assert_eq!((short.address.host.as_str(), short.sheep_port()), ("10.0.0.1", 7001));
    assert!(short.page_cache && short.object_cache && short.in_foreground());
    assert!(read("sheepfs -d /mnt").unwrap().in_foreground());
}

#[test]
fn the_port_may_stand_in_the_address() {
    assert_eq!(read("sheepfs -a [::1]:7005 /mnt").unwrap().sheep_port(), 7005);
    assert_eq!(read("sheepfs -a sheep:7005 -p 7005 /mnt").unwrap().sheep_port(), 7005);
    assert_eq!(refused("sheepfs -a sheep:7005 -p 7006 /mnt"), ErrorKind::ArgumentConflict);
}

#[test]
fn what_we_add_is_read() {
    let line = "sheepfs --local d --create a:b:10G --create c:512M --attach c --attach c:snap \
                --allow-other --uid 5 --gid 6 --mode 0640 -o --cache-size 64M /mnt";
    let options = read(line).unwrap();
    let created: Vec<_> = options.create.iter().map(|v| (v.name.as_str(), v.size)).collect();
    assert_eq!(created, [("a:b", 10 << 30), ("c", 512 << 20)]);
    let attached: Vec<_> = options.attach.iter().map(VolumeName::as_str).collect();
    assert_eq!(attached, ["c", "c:snap"]);
    assert_eq!((options.uid, options.gid, options.mode), (Some(5), Some(6), Some(0o640)));
    assert_eq!((options.object_cache, options.cache_size), (true, Some(64 << 20)));
}

#[test]
fn recovery_has_its_times_and_policies() {
    let options = read("sheepfs /mnt").unwrap();
    assert_eq!((options.on_outage, options.io_timeout), (OnOutage::Hold, Duration::from_secs(5)));
    assert_eq!(options.fence_time(), Some(Duration::from_secs(30)));
    let line = "sheepfs --on-outage=error-after=90 --io-timeout=0.5 --fence=fast /mnt";
    let options = read(line).unwrap();
    assert_eq!(options.on_outage, OnOutage::ErrorAfter(Duration::from_secs(90)));
    assert_eq!(options.io_timeout, Duration::from_millis(500));
    assert_eq!(options.fence_time(), Some(Duration::from_secs(2)));
    assert_eq!(read("sheepfs --on-outage=hold /mnt").unwrap().on_outage, OnOutage::Hold);
}

#[test]
fn a_lock_is_stolen_only_when_asked_for() {
    assert_eq!(read("sheepfs /mnt").unwrap().locking(), Locking::Take);
    assert_eq!(read("sheepfs --steal-lock /mnt").unwrap().locking(), Locking::Steal);
    assert_eq!(read("sheepfs --no-lock /mnt").unwrap().locking(), Locking::Without);
    assert_eq!(refused("sheepfs --no-lock --steal-lock /mnt"), ErrorKind::ArgumentConflict);
}

#[test]
fn the_way_to_objects_and_its_connections_have_bounds() {
    let options = read("sheepfs /mnt").unwrap();
    assert_eq!((options.route, options.max_connections), (Route::Replica, 64));
    let options = read("sheepfs --route=gateway --max-connections=4 /mnt").unwrap();
    assert_eq!((options.route, options.max_connections), (Route::Gateway, 4));
    for nonsense in ["--route=direct", "--max-connections=3", "--max-connections=many"] {
        assert_eq!(refused(&format!("sheepfs {nonsense} /mnt")), ErrorKind::ValueValidation);
    }
    assert_eq!(refused("sheepfs --max-connections=1000 /mnt"), ErrorKind::ValueValidation);
}

/// Nobody finds it by accident.
#[test]
fn the_fence_is_switched_off_by_tests_alone() {
    assert_eq!(read("sheepfs --unsafe-fence-off /mnt").unwrap().fence_time(), None);
    assert!(!Options::command().render_long_help().to_string().contains("unsafe"));
}

#[test]
fn nonsense_is_refused() {
    for line in [
        "sheepfs -p 0 /mnt",
        "sheepfs -p 65536 /mnt",
        "sheepfs -p seven /mnt",
        "sheepfs -p -1 /mnt",
        "sheepfs -a a:b:c /mnt",
        "sheepfs -a host:0 /mnt",
        "sheepfs --attach a/b /mnt",
        "sheepfs --local d --create disk /mnt",
        "sheepfs --local d --create disk:0 /mnt",
        "sheepfs --local d --create disk:10X /mnt",
        "sheepfs --local d --create :10G /mnt",
        "sheepfs --mode 888 /mnt",
        "sheepfs --mode 1777 /mnt",
        "sheepfs --mode +7 /mnt",
        "sheepfs --cache-size x /mnt",
        "sheepfs --uid root /mnt",
        "sheepfs --on-outage never /mnt",
        "sheepfs --on-outage error-after /mnt",
        "sheepfs --on-outage error-after=0 /mnt",
        "sheepfs --on-outage error-after=-1 /mnt",
        "sheepfs --on-outage error-after=inf /mnt",
        "sheepfs --io-timeout 0 /mnt",
        "sheepfs --io-timeout 3601 /mnt",
        "sheepfs --io-timeout nan /mnt",
        "sheepfs --io-timeout 1e-9 /mnt",
        "sheepfs --fence off /mnt",
        "sheepfs --source /dev/sheep /mnt",
    ] {
        let kind = refused(line);
        let expected =
            [ErrorKind::ValueValidation, ErrorKind::UnknownArgument, ErrorKind::InvalidValue];
        assert!(expected.contains(&kind), "{line}: {kind:?}");
    }
}

#[test]
fn options_that_need_or_exclude_each_other_are_refused() {
    assert_eq!(refused("sheepfs"), ErrorKind::MissingRequiredArgument);
    assert_eq!(refused("sheepfs /mnt /mnt2"), ErrorKind::UnknownArgument);
    assert_eq!(refused("sheepfs --create a:1G /mnt"), ErrorKind::MissingRequiredArgument);
    assert_eq!(refused("sheepfs --local d -a host /mnt"), ErrorKind::ArgumentConflict);
    assert_eq!(refused("sheepfs --local d -p 7000 /mnt"), ErrorKind::ArgumentConflict);
}

#[test]
fn paths_are_taken_as_written_in_a_directory() {
    let below = |line: &str| {
        let options = Options::read(line.split(' ').map(Into::into)).unwrap();
        options.below(Path::new("/home/user"))
    };
    let options = below("sheepfs --local data mount");
    assert_eq!(options.mount_point(), Path::new("/home/user/mount"));
    assert_eq!(options.local.as_deref(), Some(Path::new("/home/user/data")));
    assert_eq!(below("sheepfs /mnt").mount_point(), Path::new("/mnt"));
    // No path at all would be the directory itself.
    assert_eq!(refused_words(&["sheepfs", ""]), ErrorKind::InvalidValue);
    assert_eq!(refused_words(&["sheepfs", "--local", "", "/mnt"]), ErrorKind::InvalidValue);
}

#[test]
fn the_parser_is_sound() {
    Options::command().debug_assert();
}
