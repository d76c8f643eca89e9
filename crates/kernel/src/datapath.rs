//! The packet path in the kernel: programs and tables together, for a test or for good.

use crate::attach::{self, AttachError, Mode};
use crate::capture::Capture;
use crate::map::TableError;
use crate::object::{self, ENTRY, LoadError, Loaded, Programs};
use crate::pins::{self, PinError, Pins};
use crate::program::{Program, ProgramError, ProgramInfo, read_info};
use crate::sys;
use crate::tables::{PROGRAMS, Tables, sizes};
use abi::{LAYOUT_VERSION, Limits, Settings};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The packet path could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Loading failed.
    #[error("cannot open the packet path")]
    Load(#[from] LoadError),
    /// The pin directory is no good.
    #[error("cannot open the packet path")]
    Pin(#[from] PinError),
    /// A table could not be read or written.
    #[error("cannot open the packet path")]
    Table(#[from] TableError),
    /// The pinned tables are of another version.
    #[error(
        "the tables pinned in {} have layout version {found}, this program has {LAYOUT_VERSION}: start the version \
         that made them, or remove them (and their flows) with `sluice director --remove`",
        directory.display()
    )]
    Layout {
        /// The pin directory.
        directory: PathBuf,
        /// Their version.
        found: u32,
    },
    /// The pinned tables have other sizes than those asked for.
    #[error(
        "the tables pinned in {} were made with {limit} {found}, not {wanted}: start with --{} {found}, or \
         remove them (and their flows) with `sluice director --remove`",
        directory.display(), limit.replace('_', "-")
    )]
    Limit {
        /// The pin directory.
        directory: PathBuf,
        /// Name of the limit.
        limit: &'static str,
        /// What they were made with.
        found: u32,
        /// What was asked for.
        wanted: u32,
    },
    /// A link that was found pinned could not be examined or be given the new program.
    #[error("cannot take over the attached interface in {}", path.display())]
    Link {
        /// The pin of the link.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// One attached interface.
#[derive(Debug)]
pub struct Attachment {
    /// Index of the interface.
    pub interface: u32,
    /// How the program runs there.
    pub mode: Mode,
    link: OwnedFd,
    pin: Option<PathBuf>,
}

/// Programs and tables, loaded or adopted.
#[derive(Debug)]
pub struct Datapath {
    tables: Tables,
    programs: Programs,
    attachments: Vec<Attachment>,
    pins: Option<Pins>,
    limits: Limits,
    adopted: bool,
    /// Programs that record packets, while they stand in the place of the others.
    capture: Option<Capture>,
    /// Tail-call tables of exchanged programs: a packet may still be inside one.
    _retired: Vec<OwnedFd>,
}

impl Datapath {
    /// Loads programs and tables that end with this value: for tests and benchmarks. Settings are the defaults.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(limits: &Limits) -> Result<Self, LoadError> {
        let Loaded { programs, mut maps } = object::load(limits, None)?;
        let tables = Tables::new(&mut maps)?;
        tables.settings.put(0, &Settings::default())?;
        let (attachments, retired) = (Vec::new(), Vec::new());
        Ok(Self {
            tables,
            programs,
            attachments,
            pins: None,
            limits: *limits,
            adopted: false,
            capture: None,
            _retired: retired,
        })
    }

    /// Opens the packet path pinned in a directory, or makes it. What is there keeps running: tables with their
    /// flows, attached interfaces, and the programs if they are the same. Other programs are exchanged at
    /// each interface in one step, so that every packet meets the old or the new ones.
    ///
    /// Tables that an unfinished start left behind are made anew. The caller keeps other daemons away from the directory.
    ///
    /// # Errors
    /// [`OpenError`]; what was there runs on.
    pub fn open_pinned(directory: &Path, limits: &Limits) -> Result<Self, OpenError> {
        crate::require::check().map_err(LoadError::from)?;
        let pins = Pins::at(directory)?;
        let adopted = is_complete(&pins, directory)?;
        if adopted {
            check_sizes(&pins, directory, limits)?;
        } else {
            pins.remove()?;
            pins.create()?;
        }
        let opened = Self::open_checked(&pins, limits, adopted);
        if opened.is_err() && !adopted {
            // Nothing is attached yet: leave nothing behind.
            let _ = pins.remove();
        }
        opened
    }

    fn open_checked(pins: &Pins, limits: &Limits, adopted: bool) -> Result<Self, OpenError> {
        let Loaded { programs: fresh, mut maps } = object::load(limits, Some(&pins.maps()))?;
        let tables = Tables::new(&mut maps)?;
        let pinned = if adopted { pinned_programs(pins)? } else { None };
        let attachments = if adopted { pinned_links(pins)? } else { Vec::new() };
        let mut retired = Vec::new();
        let programs = match pinned {
            Some(old) if same_programs(&old, &fresh) && all_run(&attachments, &old) => {
                // What an exchange that was not finished, or a capture, left.
                pins::drop_prepared(&pins.maps().join(PROGRAMS))?;
                old
            }
            old => {
                drop(old);
                retired = exchange(pins, &fresh, &attachments)?;
                fresh
            }
        };
        if !adopted {
            // The mark that everything before it was done.
            tables.settings.put(0, &Settings::default())?;
        }
        Ok(Self {
            tables,
            programs,
            attachments,
            pins: Some(pins.clone()),
            limits: *limits,
            adopted,
            capture: None,
            _retired: retired,
        })
    }

    /// The tables.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// What the tables were made for.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether tables of an earlier process were found.
    #[must_use]
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// The attached interfaces.
    #[must_use]
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// The program that packets enter by.
    #[must_use]
    pub fn entry(&self) -> &Program {
        &self.programs.entry
    }

    /// Every program, the entry first.
    pub fn programs(&self) -> impl Iterator<Item = &Program> {
        self.programs.all()
    }

    /// What the verifier and the JIT made of each program.
    ///
    /// # Errors
    /// [`ProgramError`].
    pub fn verify_programs(&self) -> Result<Vec<ProgramInfo>, ProgramError> {
        self.programs.all().map(Program::info).collect()
    }

    /// Attaches the entry program to an interface of the calling thread's network namespace: native mode, or generic mode with a
    /// warning. An interface attached already is left as it is.
    ///
    /// With a pin directory the attachment outlives this process; otherwise it ends with this value.
    ///
    /// # Errors
    /// [`AttachError`]; the interface is as it was.
    pub fn attach(&mut self, name: &str) -> Result<Mode, AttachError> {
        let index = attach::interface_index(name)?;
        if let Some(there) = self.attachments.iter().find(|there| there.interface == index) {
            return Ok(there.mode);
        }
        let (link, mode) = attach::attach(self.programs.entry.as_fd(), name, index)?;
        let mut pin = None;
        if let Some(pins) = &self.pins {
            let path = pins.links().join(format!("{mode}_{index}"));
            // A pin of this name would be of an interface that is gone; its index is used again.
            pins::unpin(&path)
                .and_then(|()| pins::pin(link.as_fd(), &path))
                .map_err(|source| AttachError::Pin { name: name.to_owned(), source })?;
            pin = Some(path);
        }
        self.attachments.push(Attachment { interface: index, mode, link, pin });
        Ok(mode)
    }

    /// Forgets attachments whose interfaces are gone; the kernel has detached them. Returns how many.
    ///
    /// # Errors
    /// [`PinError`] when a pin of one cannot be removed.
    pub fn forget_gone(&mut self) -> Result<usize, PinError> {
        let is_gone = |there: &Attachment| matches!(attach::link_info(there.link.as_fd()), Ok((0, _)));
        let gone: Vec<u32> =
            self.attachments.iter().filter(|it| is_gone(it)).map(|it| it.interface).collect();
        for interface in &gone {
            self.detach(*interface)?;
        }
        Ok(gone.len())
    }

    /// Where the lasting tables are pinned.
    #[must_use]
    pub fn pinned_maps(&self) -> Option<PathBuf> {
        self.pins.as_ref().map(Pins::maps)
    }

    /// Gives every attached interface programs that record, each in one step, so that every packet meets the old or the new ones.
    /// Interfaces that are attached later are not recorded.
    ///
    /// # Errors
    /// [`OpenError`]; nothing records then.
    pub fn begin_capture(&mut self, capture: Capture) -> Result<(), OpenError> {
        self.end_capture()?;
        if let Some(pins) = &self.pins {
            // As in an exchange that is not finished: should this process die now, the table stays filled, and the next one finishes it.
            pins::prepare(capture.programs.table.as_fd(), &pins.maps().join(PROGRAMS))?;
        }
        let updated = update_links(&self.attachments, capture.watch.as_fd());
        self.capture = Some(capture);
        if let Err(error) = updated {
            self.end_capture()?;
            return Err(error);
        }
        Ok(())
    }

    /// Gives the interfaces back the programs that do not record. Returns those that did, to be kept for a moment: a packet may
    /// still be inside one.
    ///
    /// # Errors
    /// [`OpenError`]; packets are recorded on, and nobody reads it.
    pub fn end_capture(&mut self) -> Result<Option<Capture>, OpenError> {
        if self.capture.is_none() {
            return Ok(None);
        }
        update_links(&self.attachments, self.programs.entry.as_fd())?;
        if let Some(pins) = &self.pins {
            pins::drop_prepared(&pins.maps().join(PROGRAMS))?;
        }
        Ok(self.capture.take())
    }

    /// Detaches one interface. `false` when it was not attached.
    ///
    /// # Errors
    /// [`PinError`]; the interface may still be attached then.
    pub fn detach(&mut self, interface: u32) -> Result<bool, PinError> {
        let Some(at) = self.attachments.iter().position(|there| there.interface == interface) else {
            return Ok(false);
        };
        if let Some(path) = self.attachments.get(at).and_then(|there| there.pin.as_ref()) {
            pins::unpin(path)?;
        }
        let attachment = self.attachments.remove(at);
        // Ends it also for those who hold the link open; dropping the last descriptor would do otherwise.
        let _ = sys::link_detach(attachment.link.as_fd());
        Ok(true)
    }
}

/// Whether a start that went to its end left its tables here. An older or newer layout is an error.
fn is_complete(pins: &Pins, directory: &Path) -> Result<bool, OpenError> {
    let Some(fd) = pins::open(&pins.maps().join("SETTINGS"))? else { return Ok(false) };
    let map = crate::map::Map::new(fd, "SETTINGS")?;
    // The version is the first word whatever the layout.
    let mut value = vec![0; map.value_bytes()];
    let read = map.lookup(&0_u32.to_ne_bytes(), &mut value, false);
    read.map_err(|source| map.error("read from", source))?;
    match value.first_chunk::<4>().map_or(0, |bytes| u32::from_ne_bytes(*bytes)) {
        LAYOUT_VERSION => Ok(true),
        0 => Ok(false),
        found => Err(OpenError::Layout { directory: directory.to_owned(), found }),
    }
}

fn check_sizes(pins: &Pins, directory: &Path, limits: &Limits) -> Result<(), OpenError> {
    for (name, wanted, limit) in sizes(limits) {
        let Some(fd) = pins::open(&pins.maps().join(name))? else { continue };
        let found = crate::map::Map::new(fd, name)?.info().max_entries;
        if found != wanted {
            return Err(OpenError::Limit { directory: directory.to_owned(), limit, found, wanted });
        }
    }
    Ok(())
}

/// The programs pinned in the directory; `None` when not all are there.
fn pinned_programs(pins: &Pins) -> Result<Option<Programs>, OpenError> {
    let open = |name| pins::open(&pins.programs().join(name));
    let Some(entry) = open(ENTRY)? else { return Ok(None) };
    let mut behind = Vec::new();
    for program in abi::Program::ALL {
        let Some(pinned) = open(program.name())? else { return Ok(None) };
        behind.push(Program::new(program.name(), pinned));
    }
    let Some(table) = pins::open(&pins.maps().join(PROGRAMS))? else { return Ok(None) };
    Ok(Some(Programs { entry: Program::new(ENTRY, entry), behind, table }))
}

/// Whether both have the same instructions, by the kernel's own hash of them.
fn same_programs(old: &Programs, fresh: &Programs) -> bool {
    old.all().zip(fresh.all()).all(|(old, fresh)| match (read_info(old.as_fd()), read_info(fresh.as_fd())) {
        (Ok(old), Ok(fresh)) => old.tag == fresh.tag,
        _ => false,
    })
}

/// Whether every interface has this entry program; not so after a crash in the middle of an exchange.
fn all_run(attachments: &[Attachment], programs: &Programs) -> bool {
    let Ok(entry) = programs.entry.info() else { return false };
    attachments.iter().all(|there| {
        attach::link_info(there.link.as_fd()).is_ok_and(|(_, program_id)| program_id == entry.id)
    })
}

/// The pinned links whose interfaces still exist; pins of others are removed.
fn pinned_links(pins: &Pins) -> Result<Vec<Attachment>, OpenError> {
    let mut attachments = Vec::new();
    for name in Pins::names(&pins.links())? {
        let path = pins.links().join(&name);
        let Some(link) = pins::open(&path)? else { continue };
        let (interface, _) = attach::link_info(link.as_fd())
            .map_err(|source| OpenError::Link { path: path.clone(), source })?;
        if interface == 0 {
            pins::unpin(&path)?;
            continue;
        }
        let mode = if name.starts_with(Mode::Generic.name()) { Mode::Generic } else { Mode::Native };
        attachments.push(Attachment { interface, mode, link, pin: Some(path) });
    }
    Ok(attachments)
}

/// Gives every attached interface the new programs and pins these in place of the old ones. The new programs bring a
/// tail-call table of their own, so entry and followers change in one step. A crash in between leaves both tables pinned and
/// thus filled. Returns the tables that go, to be kept open: a packet may still be in the old programs.
fn exchange(pins: &Pins, fresh: &Programs, attachments: &[Attachment]) -> Result<Vec<OwnedFd>, OpenError> {
    let place = pins.maps().join(PROGRAMS);
    let mut retired = Vec::from_iter(pins::open(&place)?);
    let table = pins::prepare(fresh.table.as_fd(), &place)?;
    update_links(attachments, fresh.entry.as_fd())?;
    retired.extend(table.commit()?);
    for program in fresh.all() {
        pins::prepare(program.as_fd(), &pins.programs().join(program.name()))?.commit()?;
    }
    if !attachments.is_empty() {
        tracing::info!(interfaces = attachments.len(), "exchanged the programs of attached interfaces");
    }
    Ok(retired)
}

/// Gives interfaces another program.
fn update_links(attachments: &[Attachment], program: BorrowedFd<'_>) -> Result<(), OpenError> {
    for attachment in attachments {
        match sys::link_update(attachment.link.as_fd(), program) {
            // The interface is gone.
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
            done => done.map_err(|source| OpenError::Link {
                path: attachment.pin.clone().unwrap_or_default(),
                source,
            })?,
        }
    }
    Ok(())
}

impl Drop for Datapath {
    fn drop(&mut self) {
        // An end that fails leaves programs that record for nobody; the next daemon exchanges them.
        if let Err(error) = self.end_capture() {
            tracing::error!(%error, "the programs that record packets are still attached");
        }
    }
}

impl Attachment {
    /// Name of the interface, if it is in the network namespace of the calling thread.
    #[must_use]
    pub fn interface_name(&self) -> Option<String> {
        attach::interface_names().remove(&self.interface)
    }
}
