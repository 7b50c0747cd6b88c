//! What is mounted where, from /proc/self/mountinfo (proc_pid_mountinfo(5)):
//! the one way to learn about a mount without touching it.

use super::MountError;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// The kernel's number for it, unique while it lives.
    pub id: u64,
    /// Device number, as `major:minor`.
    pub device: String,
    /// Where.
    pub point: PathBuf,
    /// What, with its subtype.
    pub fstype: String,
    /// Of what.
    pub source: String,
}

/// What is mounted on that very path, which must be absolute and without
/// symbolic links. Of several mounts, the one on top.
pub fn find(path: &Path) -> Result<Option<MountInfo>, MountError> {
    let text = std::fs::read(MOUNTINFO)
        .map_err(|cause| MountError::system("reading", Path::new(MOUNTINFO), cause))?;
    Ok(last_on(&text, path))
}

fn last_on(text: &[u8], path: &Path) -> Option<MountInfo> {
    text.split(|byte| *byte == b'\n').filter_map(parse).rfind(|info| info.point == path)
}

/// `id parent major:minor root point options [optional ...] - fstype source ...`
fn parse(line: &[u8]) -> Option<MountInfo> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = text(fields.next()?).parse().ok()?;
    let device = text(fields.nth(1)?);
    let point = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let (fstype, source) = (text(rest.next()?), text(rest.next()?));
    Some(MountInfo { id, device, point, fstype, source })
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

/// Spaces, tabs, line breaks and backslashes come as a backslash and three octal
/// digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, behind)) = rest.split_first() {
        if let (b'\\', Some(escaped)) = (byte, behind.get(..3).and_then(octal)) {
            bytes.push(escaped);
            rest = &behind[3..];
        } else {
            bytes.push(byte);
            rest = behind;
        }
    }
    bytes
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/root rw
36 22 0:53 / /mnt/a\\040disk rw,nosuid,nodev shared:2 master:3 - fuse.sheepfs sheepfs rw,user_id=0
37 36 0:54 / /mnt/a\\040disk rw - tmpfs none rw
38 22 0:55 / /mnt/bad\\999 rw - tmpfs none rw
nonsense
39 22
";

    #[test]
    fn the_mount_on_top_is_found_by_its_unescaped_path() {
        let info = last_on(TEXT, Path::new("/mnt/a disk")).unwrap();
        assert_eq!((info.id, info.device.as_str(), info.fstype.as_str()), (37, "0:54", "tmpfs"));
        let root = last_on(TEXT, Path::new("/")).unwrap();
        assert_eq!((root.id, root.source.as_str()), (22, "/dev/root"));
        assert!(last_on(TEXT, Path::new("/mnt/bad\\999")).is_some());
        assert_eq!(last_on(TEXT, Path::new("/mnt")), None);
    }

    #[test]
    fn fields_before_the_dash_may_be_many() {
        let line = TEXT.split(|byte| *byte == b'\n').nth(1).unwrap();
        let info = parse(line).unwrap();
        assert_eq!((info.fstype.as_str(), info.source.as_str()), ("fuse.sheepfs", "sheepfs"));
    }

    #[test]
    fn the_machine_this_runs_on_has_a_root() {
        assert!(find(Path::new("/")).unwrap().is_some());
    }
}
