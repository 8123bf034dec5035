//! What the program inside shall see of the world outside.

use crate::cli::RunArgs;
use anyhow::{Context, Result, bail};
use hafez_link::{Level, Limit, Mount, Start};
use rustix::fs::{Access, access};
use rustix::process::{Resource, getgid, getgroups, getrlimit, getuid, umask};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What `HAFEZ_LOG` asks to be told on standard error: a comma-separated list of a level and of `abi`, `audit`, `boot`.
pub struct Verbosity {
    pub level: Level,
    /// Name each system call that is not supported, once.
    pub abi: bool,
    /// Check the memory core's invariants as it goes.
    pub audit: bool,
    /// Show what the kernel says before its ports work.
    pub boot: bool,
}

impl Verbosity {
    pub fn from_env() -> Result<Self> {
        let mut v = Self { level: Level::Warn, abi: false, audit: false, boot: false };
        let text = std::env::var("HAFEZ_LOG").unwrap_or_default();
        for word in text.split(',').filter(|w| !w.is_empty()) {
            match word {
                "error" => v.level = Level::Error,
                "warn" => v.level = Level::Warn,
                "info" => v.level = Level::Info,
                "debug" => v.level = Level::Debug,
                "trace" => v.level = Level::Trace,
                "abi" => v.abi = true,
                "audit" => v.audit = true,
                "boot" => v.boot = true,
                _ => {
                    bail!("HAFEZ_LOG: {word:?} is none of error, warn, info, debug, trace, abi, audit, boot")
                }
            }
        }
        Ok(v)
    }
}

/// A directory of this computer that the machine sees.
pub struct Share {
    pub tag: String,
    pub path: PathBuf,
    pub writable: bool,
}

pub struct Plan {
    pub start: Start,
    pub shares: Vec<Share>,
    /// Something the user may not expect.
    pub note: Option<String>,
}

/// Places that are the machine's own, whatever the root holds there.
const OWN: [&str; 5] = ["/tmp", "/proc", "/dev", "/sys", "/run"];

impl Plan {
    pub fn new(args: &RunArgs, verbosity: &Verbosity) -> Result<Self> {
        let root = directory(&args.root).with_context(|| format!("--root {}", args.root.display()))?;
        let mut shares =
            vec![Share { tag: hafez_link::ROOT_TAG.into(), path: root.clone(), writable: false }];
        let mut mounts = Vec::new();
        for (i, dir) in args.rw.iter().enumerate() {
            let asked = || format!("--rw {}", dir.display());
            let path = directory(dir).with_context(asked)?;
            access(&path, Access::WRITE_OK).with_context(asked)?;
            let Some(inside) = inside(&path, &root) else {
                bail!("{}: it must lie in the root directory, {}", asked(), root.display());
            };
            let tag = format!("rw{i}");
            mounts.push(Mount { tag: tag.clone().into(), path: bytes(inside.as_os_str()) });
            shares.push(Share { tag, path, writable: true });
        }
        let mut note = None;
        let cwd = working_directory(args, &root, &mounts, &mut note)?;
        let (window, tty) = super::terminal::look();
        let start = Start {
            argv: args.program.iter().map(|a| bytes(a)).collect(),
            env: environment(args)?,
            cwd: bytes(cwd.as_os_str()),
            uid: getuid().as_raw(),
            gid: getgid().as_raw(),
            groups: getgroups().unwrap_or_default().iter().map(|g| g.as_raw()).collect(),
            umask: current_umask(),
            rlimits: limits(),
            tty,
            merged: super::terminal::merged(),
            stdin: super::terminal::has_input(),
            window,
            hostname: bytes(OsStr::from_bytes(rustix::system::uname().nodename().to_bytes())),
            mounts,
            overlay: args.overlay,
            wall_ns: 0,
            log_abi: verbosity.abi,
            audit: verbosity.audit,
        };
        Ok(Self { start, shares, note })
    }

    /// The message, as of this moment.
    pub fn start_now(mut self) -> Start {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.start.wall_ns = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
        self.start
    }
}

fn bytes(text: &OsStr) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// `path` with links and dots resolved, if it is a directory.
fn directory(path: &Path) -> Result<PathBuf> {
    let path = path.canonicalize()?;
    if !path.is_dir() {
        bail!("it is not a directory");
    }
    Ok(path)
}

/// Where `path` of this computer appears in a machine with this root.
fn inside(path: &Path, root: &Path) -> Option<PathBuf> {
    path.strip_prefix(root).ok().map(|rest| Path::new("/").join(rest))
}

fn working_directory(
    args: &RunArgs,
    root: &Path,
    mounts: &[Mount],
    note: &mut Option<String>,
) -> Result<PathBuf> {
    let outside = std::env::current_dir().context("this shell's working directory")?;
    let here = inside(&outside, root);
    if let Some(asked) = &args.workdir {
        return Ok(here.unwrap_or_else(|| "/".into()).join(asked));
    }
    let mounted = |p: &Path| mounts.iter().any(|m| p.starts_with(OsStr::from_bytes(&m.path)));
    match here {
        Some(here) if mounted(&here) || !OWN.iter().any(|own| here.starts_with(own)) => Ok(here),
        Some(here) if OWN.iter().any(|own| here == Path::new(own)) => Ok(here),
        _ => {
            // `/tmp` and its like are the machine's own, so this directory does not exist in there.
            *note = Some(format!(
                "{} is not in the machine; starting in / (--rw DIR brings a directory in, -w DIR chooses another)",
                outside.display()
            ));
            Ok("/".into())
        }
    }
}

/// The outer environment (unless a clean one is asked for) with the `-e` settings over it, in their order.
fn environment(args: &RunArgs) -> Result<Vec<Vec<u8>>> {
    let mut env: Vec<(OsString, OsString)> =
        if args.clean_env { Vec::new() } else { std::env::vars_os().collect() };
    for setting in &args.env {
        let (name, value) = match setting.as_bytes().split_once_at(b'=') {
            Some((name, value)) => {
                (OsStr::from_bytes(name).to_owned(), Some(OsStr::from_bytes(value).to_owned()))
            }
            None => (setting.clone(), std::env::var_os(setting)),
        };
        env.retain(|(k, _)| *k != name);
        env.extend(value.map(|v| (name, v)));
    }
    Ok(env
        .into_iter()
        .map(|(k, v)| {
            let mut pair = k.into_vec();
            pair.push(b'=');
            pair.extend_from_slice(v.as_bytes());
            pair
        })
        .collect())
}

trait SplitOnce {
    fn split_once_at(&self, at: u8) -> Option<(&[u8], &[u8])>;
}

impl SplitOnce for [u8] {
    fn split_once_at(&self, at: u8) -> Option<(&[u8], &[u8])> {
        let i = self.iter().position(|b| *b == at)?;
        Some((&self[..i], &self[i + 1..]))
    }
}

/// There is no call that only reads it. No other thread runs yet that could create a file in between.
fn current_umask() -> u32 {
    let mask = umask(rustix::fs::Mode::empty());
    umask(mask);
    mask.as_raw_mode()
}

fn limits() -> Vec<Limit> {
    const ALL: [Resource; 16] = [
        Resource::Cpu,
        Resource::Fsize,
        Resource::Data,
        Resource::Stack,
        Resource::Core,
        Resource::Rss,
        Resource::Nproc,
        Resource::Nofile,
        Resource::Memlock,
        Resource::As,
        Resource::Locks,
        Resource::Sigpending,
        Resource::Msgqueue,
        Resource::Nice,
        Resource::Rtprio,
        Resource::Rttime,
    ];
    ALL.into_iter()
        .map(|resource| {
            let limit = getrlimit(resource);
            Limit {
                resource: resource as u32,
                soft: limit.current.unwrap_or(u64::MAX),
                hard: limit.maximum.unwrap_or(u64::MAX),
            }
        })
        .collect()
}
