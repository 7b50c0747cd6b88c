//! What a call of mount(8) means as a command line of `sheepfs`, and which are
//! refused.

use super::words::argument;
use super::*;
use clap::CommandFactory;

fn call(line: &str) -> Call {
    Call::try_parse_from(line.split_whitespace()).unwrap()
}

/// The command line for those options, without what is the same for all.
fn options(list: &str) -> String {
    let line = arguments(&call(&format!("{NAME} sheep:7001 /mnt -o {list}"))).unwrap();
    let line = shown(&line);
    let line = line.strip_prefix("sheepfs --address=sheep:7001 --source=sheep:7001").unwrap();
    line.strip_suffix(" -- /mnt").unwrap().trim_start().to_owned()
}

#[track_caller]
fn refused(line: &str, words: &str) {
    let error = arguments(&call(&format!("{NAME} {line}"))).unwrap_err();
    assert!(error.to_string().contains(words), "{error} does not say {words:?}");
    assert_eq!(error.status(), INVOCATION);
}

#[test]
fn it_is_known_by_its_name_alone() {
    assert!(is_name(OsStr::new("/sbin/mount.sheepfs")) && is_name(OsStr::new("mount.sheepfs")));
    assert!(!is_name(OsStr::new("/usr/bin/sheepfs")) && !is_name(OsStr::new("mount.sheepfs/x")));
}

#[test]
fn the_source_is_the_sheep_and_stays_as_it_was_written() {
    for (source, address) in [
        ("10.0.0.1:7000", "10.0.0.1:7000"),
        ("10.0.0.1", "10.0.0.1"),
        ("sheep1:7001", "sheep1:7001"),
        ("[2001:db8::1]:7000", "[2001:db8::1]:7000"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
    ] {
        let line = shown(&arguments(&call(&format!("{NAME} {source} /mnt/a"))).unwrap());
        assert_eq!(line, format!("sheepfs --address={address} --source={source} -- /mnt/a"));
    }
    refused("/dev/sda /mnt", "cannot mount \"/dev/sda\"");
    refused("host:0 /mnt", "the port is not a number");
}

/// The lines that mount(8) of util-linux 2.38 makes.
#[test]
fn what_mount_hands_over_is_understood() {
    let line = "/sbin/mount.sheepfs h /mnt -f -v -s -n -t sheepfs -N /proc/7/fd/4 -o ro,noatime,noexec,nosuid,nodev,pagecache,attach=disk,_netdev,nofail,user";
    let call = call(line);
    assert!(call.fake && call.sloppy && call.no_mtab && call.verbose == 1);
    assert_eq!(call.namespace.as_deref(), Some(Path::new("/proc/7/fd/4")));
    let expected = "sheepfs --address=h --source=h --read-only --pagecache --attach=disk -- /mnt";
    assert_eq!(shown(&arguments(&call).unwrap()), expected);
}

#[test]
fn flags_may_stand_anywhere_and_together() {
    let call = call("mount.sheepfs -fnv -ro attach=a h -oattach=b,attach=c:tag /mnt");
    assert!(call.fake && call.read_only);
    let line = shown(&arguments(&call).unwrap());
    assert!(line.contains("--read-only --attach=a --attach=b --attach=c:tag"), "{line}");
}

/// The manual page lists them all.
#[test]
fn the_manual_page_knows_every_option() {
    let page = include_str!("../../man/mount.sheepfs.8");
    let described: Vec<&str> = page.split([' ', '\n']).collect();
    for option in Options::command().get_arguments().filter(|option| !option.is_hide_set()) {
        let Some(long) = option.get_long() else { continue };
        let name = long.replace('-', "_");
        let value = if long == "route" { "gateway" } else { "7" };
        match argument(&name, option.get_action().takes_values().then_some(value)) {
            Ok(_) => assert!(described.contains(&name.as_str()), "{name} is not described"),
            Err(error) => assert_eq!(error, WordsError::NotOfAMount(name)),
        }
    }
}

/// None is forgotten: what `sheepfs` can do, a mount can do, unless it makes no
/// sense there.
#[test]
fn every_long_option_is_an_option_of_the_mount_or_refused_on_purpose() {
    let mut translated = 0;
    for option in Options::command().get_arguments().filter(|option| !option.is_hide_set()) {
        let Some(long) = option.get_long() else { continue };
        let value = match long {
            _ if !option.get_action().takes_values() => "",
            "on-outage" => "=hold",
            "fence" => "=fast",
            "route" => "=gateway",
            _ => "=7",
        };
        for name in [long.to_owned(), long.replace('-', "_")] {
            let call = call(&format!("{NAME} h /mnt -o {name}{value}"));
            match arguments(&call) {
                Ok(line) => {
                    let expected = format!(" --{long}{value} ");
                    assert!(shown(&line).contains(&expected), "{name}: {}", shown(&line));
                    translated += 1;
                }
                Err(HelperError::Words(WordsError::NotOfAMount(_))) => {}
                Err(error) => panic!("{name}: {error}"),
            }
        }
    }
    assert!(translated >= 20, "{translated}");
}

#[test]
fn what_is_for_others_or_always_so_is_ignored() {
    assert_eq!(options("defaults"), "");
    assert_eq!(options("_netdev,nofail,noauto,auto,users,owner,group,user=joe"), "");
    assert_eq!(options("x-systemd.automount,X-mount.mkdir=0700,comment=disks,,"), "");
    assert_eq!(options("nosuid,nodev,noexec,noatime,relatime,sync,async"), "");
}

#[test]
fn of_reading_and_writing_the_last_word_counts() {
    assert_eq!(options("ro"), "--read-only");
    assert_eq!(options("ro,read_only"), "--read-only");
    assert_eq!(options("ro,rw"), "");
    assert_eq!(options("rw -o ro"), "--read-only");
    assert_eq!(options("rw -r"), "--read-only");
    assert_eq!(options("ro -w"), "");
}

#[test]
fn values_in_double_quotes_may_hold_commas() {
    assert_eq!(options("attach=\"a,b\",pagecache"), "--attach=a,b --pagecache");
    assert_eq!(options("\"attach=a,b\",uid=7"), "--attach=a,b --uid=7");
    refused("h /mnt -o attach=\"a,b", "a double quote has no end");
}

#[test]
fn what_makes_no_sense_is_refused_in_words() {
    refused("h /mnt -o pagecahe", "unknown option \"pagecahe\"");
    refused("h /mnt -o unsafe_fence_off", "unknown option");
    refused("h /mnt -o help", "unknown option");
    for option in ["suid", "dev", "exec"] {
        refused(&format!("h /mnt -o {option}"), "the mount is always nosuid, nodev and noexec");
    }
    refused("h /mnt -o remount,ro", "can't be changed in place");
    refused("h /mnt -o port=7001", "the source names the sheep");
    refused("h /mnt -o local=/tmp", "only for the command line");
    refused("h /mnt -o pagecache=1", "takes no value");
    refused("h /mnt -o attach", "needs a value");
    refused("h /mnt -o cache_size=x", "invalid value 'x' for '--cache-size <SIZE>'");
    refused("h /mnt -o io_timeout=0", "a number of seconds above 0");
    refused("h /mnt -o pagecache,pagecache", "'--pagecache' cannot be used multiple times");
}

#[test]
fn a_sloppy_mount_ignores_what_is_unknown_and_nothing_else() {
    let call = call("mount.sheepfs -s h /mnt -o foo,bar=1,attach=a");
    assert_eq!(
        shown(&arguments(&call).unwrap()),
        "sheepfs --address=h --source=h --attach=a -- /mnt"
    );
    refused("-s h /mnt -o suid", "refused");
    refused("-s h /mnt -o mode=9", "octal");
}

#[test]
fn the_exit_status_is_one_of_mount() {
    for (code, status) in [
        (Some(0), 0),
        (Some(64), MOUNT),
        (Some(69), MOUNT),
        (Some(78), MOUNT),
        (Some(70), SYSTEM),
        (Some(134), SYSTEM),
        (None, SYSTEM),
        (Some(77), INVOCATION),
    ] {
        assert_eq!(exit_status(code), status, "{code:?}");
    }
}

#[test]
fn the_parser_is_sound() {
    Call::command().debug_assert();
}
