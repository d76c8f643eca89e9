//! Encapsulations: which tunnel options go together, and how a tunnel is written.

use crate::failure::Failure;
use crate::option::{Kind, Kinds};
use api::{Tunnel, TunnelChecksum};

/// Values of `--tun-type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TunnelType {
    #[default]
    Ipip,
    Gue,
    Gre,
}

impl TunnelType {
    /// Reads a name; case matters.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Ipip, Self::Gue, Self::Gre].into_iter().find(|t| t.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::Gre => "gre",
        }
    }
}

const CHECKSUMS: [(Kind, TunnelChecksum); 3] = [
    (Kind::TunNocsum, TunnelChecksum::None),
    (Kind::TunCsum, TunnelChecksum::Full),
    (Kind::TunRemcsum, TunnelChecksum::Remote),
];

/// The tunnel that these options describe.
pub(crate) fn build(kind: TunnelType, port: u16, given: Kinds) -> Result<Tunnel, Failure> {
    let name = kind.name();
    let illegal = |option: Kind| {
        Failure::usage(format!("Illegal '{}' option with the '{name}' tunnel type", option.name()))
    };
    match (kind, given.has(Kind::TunPort)) {
        (TunnelType::Gue, false) => {
            return Err(Failure::usage(format!(
                "You need to supply the 'tun-port' option for the '{name}' tunnel type"
            )));
        }
        (TunnelType::Ipip | TunnelType::Gre, true) => return Err(illegal(Kind::TunPort)),
        (TunnelType::Gue, true) | (TunnelType::Ipip | TunnelType::Gre, false) => {}
    }
    let mut chosen: Option<(Kind, TunnelChecksum)> = None;
    for (option, checksum) in CHECKSUMS.into_iter().filter(|(option, _)| given.has(*option)) {
        let legal = match kind {
            TunnelType::Ipip => false,
            TunnelType::Gue => true,
            TunnelType::Gre => checksum != TunnelChecksum::Remote,
        };
        if !legal {
            return Err(illegal(option));
        }
        if let Some((other, _)) = chosen.replace((option, checksum)) {
            return Err(Failure::usage(format!(
                "The option '{}' conflicts with the '{}' option in the '{name}' tunnel type",
                option.name(),
                other.name()
            )));
        }
    }
    let checksum = chosen.map_or(TunnelChecksum::None, |(_, checksum)| checksum);
    Ok(match kind {
        TunnelType::Ipip => Tunnel::Ipip,
        TunnelType::Gue => Tunnel::Gue { port, checksum },
        TunnelType::Gre => Tunnel::Gre { checksum },
    })
}

/// The column of `--tun-info`.
pub(crate) fn info_text(tunnel: Tunnel) -> String {
    let tag = |checksum| match checksum {
        TunnelChecksum::None => "-c",
        TunnelChecksum::Full => "+c",
        TunnelChecksum::Remote => "r+c",
    };
    match tunnel {
        Tunnel::Ipip => "ipip".to_owned(),
        Tunnel::Gue { port, checksum } => format!("gue:{port}:{}", tag(checksum)),
        Tunnel::Gre { checksum } => format!("gre:{}", tag(checksum)),
    }
}

/// The options that `-S` appends for a tunnel.
pub(crate) fn save_text(tunnel: Tunnel) -> String {
    let option = |checksum| match checksum {
        TunnelChecksum::None => "--tun-nocsum",
        TunnelChecksum::Full => "--tun-csum",
        TunnelChecksum::Remote => "--tun-remcsum",
    };
    match tunnel {
        Tunnel::Ipip => " --tun-type ipip".to_owned(),
        Tunnel::Gue { port, checksum } => {
            format!(" --tun-type gue --tun-port {port} {}", option(checksum))
        }
        Tunnel::Gre { checksum } => format!(" --tun-type gre {}", option(checksum)),
    }
}
