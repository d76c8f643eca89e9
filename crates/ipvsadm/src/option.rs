//! Every option: its spellings, whether it takes a word, and the name messages call it.

/// Commands: the first option of every command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    AddService,
    EditService,
    DeleteService,
    Flush,
    Restore,
    Save,
    AddServer,
    EditServer,
    DeleteServer,
    List,
    Zero,
    Set,
    StartDaemon,
    StopDaemon,
    Help,
    Version,
}

impl Command {
    /// The word used in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AddService => "add-service",
            Self::EditService => "edit-service",
            Self::DeleteService => "delete-service",
            Self::Flush => "flush",
            Self::Restore => "restore",
            Self::Save => "save",
            Self::AddServer => "add-server",
            Self::EditServer => "edit-server",
            Self::DeleteServer => "delete-server",
            Self::List => "list",
            Self::Zero => "zero",
            Self::Set => "set",
            Self::StartDaemon => "start-daemon",
            Self::StopDaemon => "stop-daemon",
            Self::Help => "help",
            Self::Version => "version",
        }
    }
}

/// What the option matrix and the messages distinguish. The order is the order in which offences are
/// reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Numeric,
    Connection,
    Service,
    Scheduler,
    Persistent,
    Netmask,
    Server,
    Forward,
    Weight,
    UpperThreshold,
    LowerThreshold,
    McastInterface,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    NoSort,
    SyncId,
    Exact,
    OnePacket,
    Engine,
    SchedFlags,
    McastGroup,
    McastPort,
    McastTtl,
    SyncMaxlen,
    TunInfo,
    TunType,
    TunPort,
    TunNocsum,
    TunCsum,
    TunRemcsum,
}

impl Kind {
    /// Every kind, in report order, with the word used in messages.
    pub(crate) const NAMES: [(Self, &'static str); 34] = [
        (Self::Numeric, "numeric"),
        (Self::Connection, "connection"),
        (Self::Service, "service-address"),
        (Self::Scheduler, "scheduler"),
        (Self::Persistent, "persistent"),
        (Self::Netmask, "netmask"),
        (Self::Server, "real-server"),
        (Self::Forward, "forwarding-method"),
        (Self::Weight, "weight"),
        (Self::UpperThreshold, "u-threshold"),
        (Self::LowerThreshold, "l-threshold"),
        (Self::McastInterface, "mcast-interface"),
        (Self::Timeout, "timeout"),
        (Self::Daemon, "daemon"),
        (Self::Stats, "stats"),
        (Self::Rate, "rate"),
        (Self::Thresholds, "thresholds"),
        (Self::PersistentConn, "persistent-conn"),
        (Self::NoSort, "nosort"),
        (Self::SyncId, "syncid"),
        (Self::Exact, "exact"),
        (Self::OnePacket, "ops"),
        (Self::Engine, "pe"),
        (Self::SchedFlags, "sched-flags"),
        (Self::McastGroup, "mcast-group"),
        (Self::McastPort, "mcast-port"),
        (Self::McastTtl, "mcast-ttl"),
        (Self::SyncMaxlen, "sync-maxlen"),
        (Self::TunInfo, "tun-info"),
        (Self::TunType, "tun-type"),
        (Self::TunPort, "tun-port"),
        (Self::TunNocsum, "tun-nocsum"),
        (Self::TunCsum, "tun-csum"),
        (Self::TunRemcsum, "tun-remcsum"),
    ];

    /// The word used in messages.
    pub(crate) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

/// A set of [`Kind`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kinds(u64);

impl Kinds {
    /// The set of these kinds.
    pub(crate) fn of(kinds: &[Kind]) -> Self {
        kinds.iter().fold(Self::default(), |set, kind| Self(set.0 | 1 << *kind as u64))
    }

    /// Whether this kind is in the set.
    pub(crate) fn has(self, kind: Kind) -> bool {
        self.0 >> kind as u64 & 1 == 1
    }

    /// Whether any of these kinds is in the set.
    pub(crate) fn has_any(self, kinds: &[Kind]) -> bool {
        self.0 & Self::of(kinds).0 != 0
    }

    /// Puts a kind in; false if it was there.
    pub(crate) fn put(&mut self, kind: Kind) -> bool {
        let new = !self.has(kind);
        self.0 |= 1 << kind as u64;
        new
    }
}

/// Meaning of one spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// A command.
    Command(Command),
    /// `-t` and its kin: a service at this protocol.
    Service(api::Protocol),
    /// `-f`.
    Fwmark,
    /// `-g`, `-i`, `-m`.
    Forward(api::Forwarding),
    /// `-6`.
    Ipv6,
    /// `--sort`.
    Sort,
    /// Everything else.
    Plain(Kind),
}

/// Whether a word follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    Nothing,
    Word,
    /// The next word unless it starts with `-`.
    MaybeWord,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opt {
    pub(crate) long: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) takes: Takes,
    pub(crate) meaning: Meaning,
}

const fn command(long: &'static str, short: Option<char>, command: Command) -> Opt {
    Opt { long, short, takes: Takes::Nothing, meaning: Meaning::Command(command) }
}

const fn word(long: &'static str, short: Option<char>, meaning: Meaning) -> Opt {
    Opt { long, short, takes: Takes::Word, meaning }
}

const fn switch(long: &'static str, short: Option<char>, meaning: Meaning) -> Opt {
    Opt { long, short, takes: Takes::Nothing, meaning }
}

/// Every option there is. `-l` is a second spelling of `--list`.
pub(crate) const OPTIONS: [Opt; 58] = [
    command("add-service", Some('A'), Command::AddService),
    command("edit-service", Some('E'), Command::EditService),
    command("delete-service", Some('D'), Command::DeleteService),
    command("clear", Some('C'), Command::Flush),
    command("restore", Some('R'), Command::Restore),
    command("save", Some('S'), Command::Save),
    command("add-server", Some('a'), Command::AddServer),
    command("edit-server", Some('e'), Command::EditServer),
    command("delete-server", Some('d'), Command::DeleteServer),
    command("list", Some('L'), Command::List),
    command("list", Some('l'), Command::List),
    command("zero", Some('Z'), Command::Zero),
    command("set", None, Command::Set),
    word("start-daemon", None, Meaning::Command(Command::StartDaemon)),
    word("stop-daemon", None, Meaning::Command(Command::StopDaemon)),
    command("help", Some('h'), Command::Help),
    command("version", Some('v'), Command::Version),
    word("tcp-service", Some('t'), Meaning::Service(api::Protocol::Tcp)),
    word("udp-service", Some('u'), Meaning::Service(api::Protocol::Udp)),
    word("sctp-service", None, Meaning::Service(api::Protocol::Sctp)),
    word("fwmark-service", Some('f'), Meaning::Fwmark),
    switch("ipv6", Some('6'), Meaning::Ipv6),
    word("scheduler", Some('s'), Meaning::Plain(Kind::Scheduler)),
    Opt {
        long: "persistent",
        short: Some('p'),
        takes: Takes::MaybeWord,
        meaning: Meaning::Plain(Kind::Persistent),
    },
    word("netmask", Some('M'), Meaning::Plain(Kind::Netmask)),
    word("pe", None, Meaning::Plain(Kind::Engine)),
    switch("ops", Some('o'), Meaning::Plain(Kind::OnePacket)),
    word("sched-flags", Some('b'), Meaning::Plain(Kind::SchedFlags)),
    word("real-server", Some('r'), Meaning::Plain(Kind::Server)),
    switch("gatewaying", Some('g'), Meaning::Forward(api::Forwarding::DirectRouting)),
    switch("ipip", Some('i'), Meaning::Forward(api::Forwarding::Tunnel)),
    switch("masquerading", Some('m'), Meaning::Forward(api::Forwarding::Masquerade)),
    word("weight", Some('w'), Meaning::Plain(Kind::Weight)),
    word("u-threshold", Some('x'), Meaning::Plain(Kind::UpperThreshold)),
    word("l-threshold", Some('y'), Meaning::Plain(Kind::LowerThreshold)),
    word("tun-type", None, Meaning::Plain(Kind::TunType)),
    word("tun-port", None, Meaning::Plain(Kind::TunPort)),
    switch("tun-nocsum", None, Meaning::Plain(Kind::TunNocsum)),
    switch("tun-csum", None, Meaning::Plain(Kind::TunCsum)),
    switch("tun-remcsum", None, Meaning::Plain(Kind::TunRemcsum)),
    switch("numeric", Some('n'), Meaning::Plain(Kind::Numeric)),
    switch("connection", Some('c'), Meaning::Plain(Kind::Connection)),
    switch("timeout", None, Meaning::Plain(Kind::Timeout)),
    switch("daemon", None, Meaning::Plain(Kind::Daemon)),
    switch("stats", None, Meaning::Plain(Kind::Stats)),
    switch("rate", None, Meaning::Plain(Kind::Rate)),
    switch("thresholds", None, Meaning::Plain(Kind::Thresholds)),
    switch("persistent-conn", None, Meaning::Plain(Kind::PersistentConn)),
    switch("tun-info", None, Meaning::Plain(Kind::TunInfo)),
    switch("exact", Some('X'), Meaning::Plain(Kind::Exact)),
    switch("nosort", None, Meaning::Plain(Kind::NoSort)),
    switch("sort", None, Meaning::Sort),
    word("mcast-interface", None, Meaning::Plain(Kind::McastInterface)),
    word("syncid", None, Meaning::Plain(Kind::SyncId)),
    word("sync-maxlen", None, Meaning::Plain(Kind::SyncMaxlen)),
    word("mcast-group", None, Meaning::Plain(Kind::McastGroup)),
    word("mcast-port", None, Meaning::Plain(Kind::McastPort)),
    word("mcast-ttl", None, Meaning::Plain(Kind::McastTtl)),
];
