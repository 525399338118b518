//! A disk of one server: ext4 on a loop device over a [`Drive`], mounted where the server has its
//! data.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use ringkeeper::base::prng::Prng;

use crate::drive::{Drive, Mood};
use crate::net::run;

const MIB: u64 = 1024 * 1024;
const DISK_BYTES: u64 = 160 * MIB;
/// Processes that were killed let go of their files within this.
const RELEASED_WITHIN: Duration = Duration::from_secs(60);
/// `EXT4_IOC_SHUTDOWN` and its flag for "do not flush the journal" (`fs/ext4/ext4.h`).
const SHUTDOWN: libc::c_ulong = 0x8004_587d;
const WITHOUT_JOURNAL: u32 = 2;

/// One disk, unmounted with this value.
pub(crate) struct Disk {
    pub(crate) drive: Drive,
    device: Option<String>,
    /// Where it is mounted.
    pub(crate) mount: PathBuf,
}

impl Disk {
    /// A new disk, empty and mounted at `HOME/disk`; the drive's platter is a new file.
    ///
    /// # Errors
    /// The machine does not let us, or lacks a program.
    pub(crate) fn new(home: &Path, platter: &Path) -> io::Result<Self> {
        File::create(platter)?.set_len(DISK_BYTES)?;
        let text = platter.display().to_string();
        let options = "lazy_itable_init=0,lazy_journal_init=0";
        run("mkfs.ext4", &["-q", "-F", "-b", "4096", "-m", "0", "-E", options, &text])?;
        let drive = Drive::new(platter, home.join("drive"))?;
        let mount = home.join("disk");
        fs::create_dir_all(&mount)?;
        let mut disk = Self { drive, device: None, mount };
        disk.attach()?;
        Ok(disk)
    }

    /// Mounts it; the file system recovers.
    ///
    /// # Errors
    /// What the programs say.
    pub(crate) fn attach(&mut self) -> io::Result<()> {
        let file = self.drive.file().display().to_string();
        let device = run("losetup", &["--find", "--show", &file])?.trim().to_owned();
        self.device = Some(device.clone());
        let mount = self.mount.display().to_string();
        let options = "noatime,errors=remount-ro";
        run("mount", &["-t", "ext4", "-o", options, &device, &mount])?;
        // It may have been full when it failed.
        let _none = fs::remove_file(self.filler());
        Ok(())
    }

    /// Unmounts it. Its server has ended, but may still hold its files for a moment.
    pub(crate) fn detach(&mut self) {
        let Some(device) = self.device.take() else { return };
        let deadline = Instant::now() + RELEASED_WITHIN;
        let mount = self.mount.display().to_string();
        while let Err(error) = run("umount", &[&mount]) {
            assert!(Instant::now() < deadline, "{error}");
            thread::sleep(Duration::from_millis(10));
        }
        while let Err(error) = run("losetup", &["-d", &device]) {
            assert!(Instant::now() < deadline, "{error}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The power is cut: the drive loses its cache, the machine what it had not written. How many
    /// sectors the drive lost. Whoever used the disk is killed next, and then it is remounted.
    pub(crate) fn cut_power(&self, prng: &mut Prng) -> usize {
        let lost = self.drive.cut_power(prng);
        if let Ok(root) = File::open(&self.mount) {
            // SAFETY: the flag is read before the call ends. A file system that has failed is
            // down already.
            unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &WITHOUT_JOURNAL) };
        }
        lost
    }

    /// It works again, with what a new machine finds on it.
    pub(crate) fn remount(&mut self) {
        self.detach();
        self.drive.set_mood(Mood::Well);
        self.attach().expect("the file system recovers");
    }

    /// Nothing new has room.
    pub(crate) fn fill(&self) {
        let file = File::create(self.filler()).expect("the disk is writable");
        // The blocks that are left: first many at once, then one by one.
        for step in [MIB, 64 * 1024, 4096] {
            loop {
                let at = file.metadata().expect("it is open").len();
                // SAFETY: the descriptor is open.
                let done = unsafe { libc::fallocate(file.as_raw_fd(), 0, at as i64, step as i64) };
                if done != 0 {
                    break;
                }
            }
        }
    }

    /// There is room again.
    pub(crate) fn free(&self) {
        fs::remove_file(self.filler()).expect("it was filled");
    }

    fn filler(&self) -> PathBuf {
        self.mount.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _gone = run("umount", &["-l", &self.mount.display().to_string()]);
        if let Some(device) = &self.device {
            let _gone = run("losetup", &["-d", device]);
        }
    }
}
