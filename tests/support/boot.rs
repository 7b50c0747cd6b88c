//! A bootable disk of our own making, so that the boot test needs no download and no
//! operating system. The first sector is a hand-assembled BIOS boot sector: it prints a
//! greeting on the serial port, reads one sector from the middle of the disk through the
//! BIOS and prints the text in it, writes that sector to a third place, and resets the
//! machine. So one boot proves that firmware and guest can read the disk at its start and
//! far from it, and that what a guest wrote is on the disk after the machine has gone.
//!
//! The numbers are those of the IBM PC: boot sectors are loaded at 0x7c00 with the drive's
//! number in DL, COM1 is at port 0x3f8, INT 13h functions 42h and 43h are the "extended"
//! (LBA) read and write, and writing 0xfe to port 0x64 resets the machine, which
//! `qemu -no-reboot` turns into an ordinary exit with status 0.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

/// What the boot sector prints before it touches the disk.
pub const GREETING: &str = "sector 0 runs\r\n";
/// What it prints when the BIOS refuses to read or write.
pub const DISK_ERROR: &str = "disk error\r\n";
/// The sector (of 512 bytes) whose text is printed after the greeting.
pub const TEXT_SECTOR: u64 = 2048;
/// The sector into which the guest copies the text.
pub const COPY_SECTOR: u64 = 6144;
/// A disk must hold at least this many bytes.
pub const DISK_BYTES_MIN: u64 = (COPY_SECTOR + 1) * 512;

const LOADED_AT: u16 = 0x7c00;
/// The sector's layout: code, then subroutine, BIOS packets and texts at fixed places.
const PRINT_AT: u16 = 0x80;
const READ_PACKET_AT: u16 = 0xc0;
const WRITE_PACKET_AT: u16 = 0xd0;
const GREETING_AT: u16 = 0x100;
const DISK_ERROR_AT: u16 = 0x140;
/// Where the guest's memory takes the sector with the text.
const BUFFER: u16 = 0x7e00;

/// Makes `disk` bootable: the boot sector at 0, and `text` in [`TEXT_SECTOR`], both written
/// in place. `text` is cut to 511 bytes, a zero ends it.
pub fn make_bootable(disk: &File, text: &str) -> io::Result<()> {
    disk.write_all_at(&boot_sector(), 0)?;
    disk.write_all_at(&text_sector(text), TEXT_SECTOR * 512)
}

/// The sector that holds `text`: this is also what a boot leaves in [`COPY_SECTOR`].
pub fn text_sector(text: &str) -> [u8; 512] {
    let mut sector = [0; 512];
    for (to, from) in sector.iter_mut().zip(text.bytes().take(511)) {
        *to = from;
    }
    sector
}

/// Boots `disk` under emulation (no /dev/kvm needed), with the cache mode of the original's
/// manual, and returns what the guest wrote to its serial port. An error if the machine has
/// not reset itself within two minutes, or if qemu could not start: with its words.
pub fn boot(disk: &Path) -> io::Result<String> {
    let drive = format!("file={},format=raw,cache=writeback", disk.display());
    let run = Command::new("timeout")
        .args(["--kill-after=5", "120", "qemu-system-x86_64"])
        .args(["-machine", "pc,accel=tcg", "-m", "16", "-nodefaults", "-no-reboot"])
        .args(["-display", "none", "-serial", "stdio", "-drive", &drive])
        .output()?;
    if run.status.success() {
        return Ok(String::from_utf8_lossy(&run.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&run.stderr);
    Err(io::Error::other(format!("qemu: {}: {words}", run.status)))
}

/// The boot sector: 510 bytes of program, then the signature without which no BIOS boots it.
pub fn boot_sector() -> [u8; 512] {
    let mut sector = [0; 512];
    place(&mut sector, 0, &main_program());
    place(&mut sector, PRINT_AT, &print_routine());
    place(&mut sector, READ_PACKET_AT, &disk_packet(TEXT_SECTOR));
    place(&mut sector, WRITE_PACKET_AT, &disk_packet(COPY_SECTOR));
    place(&mut sector, GREETING_AT, GREETING.as_bytes());
    place(&mut sector, DISK_ERROR_AT, DISK_ERROR.as_bytes());
    place(&mut sector, 510, &[0x55, 0xaa]);
    sector
}

fn place(sector: &mut [u8; 512], at: u16, bytes: &[u8]) {
    let at = usize::from(at);
    sector[at..at + bytes.len()].copy_from_slice(bytes);
}

/// From power-on to reset. The BIOS enters with the boot drive's number in DL, which
/// [`print_routine`] preserves and INT 13h wants.
#[rustfmt::skip]
fn main_program() -> Vec<u8> {
    let mut code = vec![
        0xfa,                           // cli             no interrupts while the stack moves
        0x31, 0xc0,                     // xor ax, ax
        0x8e, 0xd8,                     // mov ds, ax      data, extra and stack segment 0,
        0x8e, 0xc0,                     // mov es, ax      so that addresses are plain offsets
        0x8e, 0xd0,                     // mov ss, ax
        0xbc, 0x00, 0x7c,               // mov sp, 0x7c00  the stack grows down from below us
        0xfb,                           // sti             the BIOS needs its interrupts again
        0xfc,                           // cld             lodsb goes upwards
    ];
    print(&mut code, LOADED_AT + GREETING_AT);
    disk_call(&mut code, 0x42, READ_PACKET_AT);
    print(&mut code, BUFFER);
    disk_call(&mut code, 0x43, WRITE_PACKET_AT);
    code.extend([0xeb, 0x06]);          // jmp reset       over the six bytes of the next print
    print(&mut code, LOADED_AT + DISK_ERROR_AT); // failed: entered by the jumps of disk_call
    code.extend([
        0xb0, 0xfe,                     // mov al, 0xfe    reset: pulse the CPU's reset line
        0xe6, 0x64,                     // out 0x64, al    through the keyboard controller
        0xf4,                           // hlt             until that takes effect
        0xeb, 0xfd,                     // jmp hlt
    ]);
    code
}

/// `mov si, address; call print`: six bytes.
fn print(code: &mut Vec<u8>, address: u16) {
    code.push(0xbe); // mov si, imm16
    code.extend(address.to_le_bytes());
    code.push(0xe8); // call rel16, counted from the instruction after it
    let next = code.len() + 2;
    let distance = usize::from(PRINT_AT) - next;
    code.extend(distance.to_le_bytes()[..2].iter());
}

/// `mov si, packet; mov ah, function; int 0x13; jc failed`.
#[rustfmt::skip]
fn disk_call(code: &mut Vec<u8>, function: u8, packet: u16) {
    code.push(0xbe);                    // mov si, imm16
    code.extend((LOADED_AT + packet).to_le_bytes());
    code.extend([0xb4, function]);      // mov ah, function  42h reads, 43h writes
    if function == 0x43 {
        code.extend([0xb0, 0x00]);      // mov al, 0         write without verifying
    }
    code.extend([0xcd, 0x13]);          // int 0x13          sets carry when it failed
    code.push(0x72);                    // jc rel8, counted from the instruction after it
    let skipped = if function == 0x42 { READ_TO_FAILED } else { WRITE_TO_FAILED };
    code.push(skipped);
}

/// Bytes between the jump after the write and the label `failed`: one `jmp reset`.
const WRITE_TO_FAILED: u8 = 2;
/// The same for the read: a print (6), the write's call (11), and that jump.
const READ_TO_FAILED: u8 = 6 + 11 + WRITE_TO_FAILED;

/// Sends the zero-terminated text at SI to COM1. Keeps DX, which holds the drive.
#[rustfmt::skip]
fn print_routine() -> Vec<u8> {
    vec![
        0x52,                           // push dx
        0xac,                           // next: lodsb     al = [si], si = si + 1
        0x84, 0xc0,                     // test al, al     zero ends the text
        0x74, 0x11,                     // jz done
        0x88, 0xc3,                     // mov bl, al
        0xba, 0xfd, 0x03,               // mov dx, 0x3fd   COM1's line status
        0xec,                           // wait: in al, dx
        0xa8, 0x20,                     // test al, 0x20   may the next byte go out?
        0x74, 0xfb,                     // jz wait
        0x88, 0xd8,                     // mov al, bl
        0xb2, 0xf8,                     // mov dl, 0xf8    dx = 0x3f8, COM1's data
        0xee,                           // out dx, al
        0xeb, 0xea,                     // jmp next
        0x5a,                           // done: pop dx
        0xc3,                           // ret
    ]
}

/// INT 13h's disk address packet: its size, one sector, to or from [`BUFFER`], at `sector`.
fn disk_packet(sector: u64) -> Vec<u8> {
    let mut packet = vec![16, 0, 1, 0];
    packet.extend(BUFFER.to_le_bytes()); // offset, then
    packet.extend(0_u16.to_le_bytes()); // segment of the buffer
    packet.extend(sector.to_le_bytes());
    packet
}
