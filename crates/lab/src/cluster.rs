//! The cluster: namespaces, links, addresses, servers.
//!
//! The `ip` command makes the network: it is on every machine, and its lines can be repeated by hand.

use crate::address::{HTTP_PORT, Node, REALS_MAX, UDP_PORT, VIP_V4, VIP_V6, vip};
use crate::command::{self, CommandError};
use crate::download::Downloads;
use crate::load::{LoadHandle, LoadOptions};
use crate::nginx;
use crate::process::Process;
use crate::run::{Run, RunError};
use crate::udp::{Echo, UdpError};
use host::netlink::{Netlink, NetlinkError};
use host::netns::{Namespace, NamespaceError};
use host::xdp::PassError;
use host::{Interface, interface::InterfaceError};
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long nginx may take to listen.
const READY_MAX: Duration = Duration::from_secs(10);
/// How long processes get to end before they are killed.
const END_MAX: Duration = Duration::from_secs(2);
/// The namespace with the bridge.
const SWITCH: &str = "switch";
/// The interface of every node.
pub const INTERFACE: &str = "eth0";

/// Who answers UDP on the real servers.
#[derive(Clone, Debug, Default)]
pub enum UdpEcho {
    /// Threads of this process.
    #[default]
    Threads,
    /// Processes of this program, called with `lab-udp-echo NAME ADDRESS...`; they can outlive this process.
    Program(PathBuf),
}

/// What cluster to make.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// Real servers at the start, at most [`REALS_MAX`].
    pub reals: u32,
    /// Who answers UDP.
    pub udp_echo: UdpEcho,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self { reals: 3, udp_echo: UdpEcho::default() }
    }
}

/// The cluster could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// No root.
    #[error("network namespaces need root; run this as root or through sudo")]
    NotRoot,
    /// A program is missing or failed.
    #[error("cannot set the cluster up")]
    Command(#[from] CommandError),
    /// The run.
    #[error("cannot set the cluster up")]
    Run(#[from] RunError),
    /// A namespace.
    #[error("cannot set the cluster up")]
    Namespace(#[from] NamespaceError),
    /// Netlink.
    #[error("cannot set the switch up")]
    Netlink(#[from] NetlinkError),
    /// An interface that should be there.
    #[error("cannot set the switch up")]
    Interface(#[from] InterfaceError),
    /// The pass program on the switch.
    #[error("cannot set the switch up")]
    Pass(#[from] PassError),
    /// The UDP echo.
    #[error("cannot start the UDP echo of {name}")]
    Udp {
        /// The real server.
        name: String,
        /// Why.
        #[source]
        source: UdpError,
    },
    /// A file, a thread or a process.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A server does not answer.
    #[error("{name} does not answer on port {HTTP_PORT}; its log ends with: {log}")]
    NotReady {
        /// The real server.
        name: String,
        /// The end of its log.
        log: String,
    },
    /// There is no such real server.
    #[error("there is no real{0}")]
    NoSuchReal(u32),
    /// The numbers have run out.
    #[error("the lab numbers its real servers from 1 to {REALS_MAX}")]
    TooManyReals,
}

/// Turns an I/O error into one that says what was tried.
pub(crate) fn io_failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> LabError {
    let what = what.into();
    move |source| LabError::Io { what, source }
}

#[derive(Debug)]
struct Real {
    web_server: Process,
    processes: Vec<Process>,
    _echo: Option<Echo>,
}

/// A running cluster; removed with everything in it when dropped.
#[derive(Debug)]
pub struct Lab {
    // Dropped in this order: servers, then namespaces and files with the run.
    reals: BTreeMap<u32, Real>,
    namespaces: BTreeMap<Node, Namespace>,
    options: LabOptions,
    next_real: u32,
    pub(crate) inside: Vec<String>,
    run: Run,
}

impl Lab {
    /// Makes a cluster.
    ///
    /// # Errors
    /// [`LabError`]; nothing is left behind.
    pub fn new(options: LabOptions) -> Result<Self, LabError> {
        check_machine()?;
        let run = Run::create()?;
        let reals = options.reals;
        let mut lab = Self {
            reals: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            options,
            next_real: 1,
            inside: Vec::new(),
            run,
        };
        lab.make_switch()?;
        lab.add_node(Node::Client)?;
        lab.add_node(Node::Director)?;
        lab.attach_pass_to_port(Node::Director)?;
        for _ in 0..reals {
            lab.add_real()?;
        }
        Ok(lab)
    }

    /// Name of the run: the part between `sl-` and the node's name in the namespaces' names.
    #[must_use]
    pub fn run_id(&self) -> &str {
        self.run.id()
    }

    /// Where logs and sockets of the run are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.run.directory()
    }

    /// Name of a node's namespace, for `ip netns exec`.
    #[must_use]
    pub fn namespace_name(&self, node: Node) -> String {
        self.run.namespace(&node.name())
    }

    /// A node's namespace.
    ///
    /// # Errors
    /// [`LabError::NoSuchReal`].
    pub fn namespace(&self, node: Node) -> Result<&Namespace, LabError> {
        self.namespaces.get(&node).ok_or(match node {
            Node::Real(number) => LabError::NoSuchReal(number),
            Node::Client | Node::Director => LabError::NoSuchReal(0),
        })
    }

    /// Numbers of the present real servers.
    #[must_use]
    pub fn reals(&self) -> Vec<u32> {
        self.reals.keys().copied().collect()
    }

    /// Adds a real server that answers before this returns; gives its number.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn add_real(&mut self) -> Result<u32, LabError> {
        let number = self.next_real;
        if number > REALS_MAX {
            return Err(LabError::TooManyReals);
        }
        let node = Node::Real(number);
        self.next_real += 1;
        self.add_node(node)?;
        let real = self.start_servers(node)?;
        self.reals.insert(number, real);
        Ok(number)
    }

    /// Removes a real server with its namespace. Its number is not used again.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn remove_real(&mut self, number: u32) -> Result<(), LabError> {
        let real = self.reals.remove(&number).ok_or(LabError::NoSuchReal(number))?;
        drop(real);
        let node = Node::Real(number);
        self.namespaces.remove(&node);
        command::ip(&format!("netns delete {}", self.namespace_name(node)))?;
        Ok(())
    }

    /// Kills the web server of a real server as a crash would; the machine stays.
    ///
    /// # Errors
    /// [`LabError::NoSuchReal`].
    pub fn kill_web_server(&mut self, number: u32) -> Result<(), LabError> {
        let real = self.reals.get_mut(&number).ok_or(LabError::NoSuchReal(number))?;
        real.web_server.crash();
        Ok(())
    }

    /// Starts it again; it answers before this returns.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn start_web_server(&mut self, number: u32) -> Result<(), LabError> {
        let node = Node::Real(number);
        let mut process = self.spawn_web_server(node)?;
        self.wait_for_http(node, std::slice::from_mut(&mut process))?;
        let real = self.reals.get_mut(&number).ok_or(LabError::NoSuchReal(number))?;
        real.web_server = process;
        Ok(())
    }

    /// A command that will run in a node's namespace.
    ///
    /// # Errors
    /// [`LabError::NoSuchReal`].
    pub fn command_in(&self, node: Node, program: impl AsRef<std::ffi::OsStr>) -> Result<Command, LabError> {
        Ok(self.namespace(node)?.command(program))
    }

    /// Runs a command to its end in a node's namespace; gives what it wrote to standard output.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn exec_in(&self, node: Node, program: &str, arguments: &[&str]) -> Result<String, LabError> {
        let mut command = self.command_in(node, program)?;
        command.args(arguments);
        Ok(command::output(command, None)?)
    }

    /// Starts a program in a node's namespace; its output goes to `NAME.log` in the run's directory.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn start(&self, name: &str, command: Command) -> Result<Process, LabError> {
        let log = self.directory().join(format!("{name}.log"));
        let line = command::describe(&command);
        Process::start(name, command, &log).map_err(io_failed(format!("start {line}")))
    }

    /// Starts an HTTP load from the client.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn start_load(&self, options: LoadOptions) -> Result<LoadHandle, LabError> {
        LoadHandle::start(self.namespace(Node::Client)?, options).map_err(io_failed("start a load"))
    }

    /// Starts `count` downloads of `rate` bytes a second each from the client.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn start_downloads(
        &self,
        target: SocketAddr,
        count: usize,
        rate: u32,
    ) -> Result<Downloads, LabError> {
        Downloads::start(self.namespace(Node::Client)?, target, count, rate)
            .map_err(io_failed("start downloads"))
    }

    /// Leaves everything running when this is dropped, until [`crate::run::end`]. The UDP echo ends with this
    /// process unless it is a [`UdpEcho::Program`].
    ///
    /// # Errors
    /// [`LabError`].
    pub fn keep(mut self) -> Result<(), LabError> {
        self.run.keep()?;
        for process in self.reals.values_mut().flat_map(Real::all) {
            process.release();
        }
        Ok(())
    }

    fn make_switch(&self) -> Result<(), LabError> {
        let switch = self.run.namespace(SWITCH);
        command::ip(&format!("netns add {switch}"))?;
        write_sysctls(&Namespace::open(&switch)?, &["ipv6/conf/default/disable_ipv6=1"])?;
        let lines = ["link add br0 type bridge forward_delay 0 mcast_snooping 0", "link set br0 up"];
        Ok(command::ip_batch(&switch, &lines.map(str::to_owned))?)
    }

    fn add_node(&mut self, node: Node) -> Result<(), LabError> {
        let (name, namespace) = (node.name(), self.namespace_name(node));
        let switch = self.run.namespace(SWITCH);
        command::ip(&format!("netns add {namespace}"))?;
        let opened = Namespace::open(&namespace)?;
        write_sysctls(&opened, &sysctls(node))?;
        command::ip(&format!(
            "link add {INTERFACE} netns {namespace} type veth peer name {name} netns {switch}"
        ))?;
        turn_offloads_off(&opened, INTERFACE)?;
        turn_offloads_off(&Namespace::open(&switch)?, &name)?;
        command::ip_batch(&switch, &[format!("link set {name} master br0 up")])?;
        command::ip_batch(&namespace, &addresses(node))?;
        self.namespaces.insert(node, opened);
        Ok(())
    }

    /// A veth delivers what its peer sends from XDP only with an XDP program of its own.
    fn attach_pass_to_port(&self, node: Node) -> Result<(), LabError> {
        attach_pass(&Namespace::open(&self.run.namespace(SWITCH))?, &node.name())
    }

    fn start_servers(&self, node: Node) -> Result<Real, LabError> {
        let name = node.name();
        let mut web_server = self.spawn_web_server(node)?;
        let mut processes = Vec::new();
        let udp = [vip(false, UDP_PORT), vip(true, UDP_PORT)];
        let echo = match &self.options.udp_echo {
            UdpEcho::Threads => {
                let echo = Echo::start(self.namespace(node)?, &name, &udp);
                Some(echo.map_err(|source| LabError::Udp { name: name.clone(), source })?)
            }
            UdpEcho::Program(program) => {
                let mut command = self.command_in(node, program)?;
                command.arg("lab-udp-echo").arg(&name).args(udp.map(|address| address.to_string()));
                processes.push(self.start(&format!("{name}-udp"), command)?);
                None
            }
        };
        self.wait_for_http(node, std::slice::from_mut(&mut web_server))?;
        Ok(Real { web_server, processes, _echo: echo })
    }

    fn spawn_web_server(&self, node: Node) -> Result<Process, LabError> {
        let name = node.name();
        let directory = self.directory().join(&name);
        std::fs::create_dir_all(&directory).map_err(io_failed(format!("make {}", directory.display())))?;
        let configuration = nginx::write_files(&directory, &name, HTTP_PORT)
            .map_err(io_failed(format!("write the files of {name}")))?;
        let mut command = self.command_in(node, command::find("nginx", "nginx-light")?)?;
        command.arg("-c").arg(configuration).arg("-e").arg(directory.join("error.log"));
        self.start(&format!("{name}-nginx"), command)
    }

    fn wait_for_http(&self, node: Node, processes: &mut [Process]) -> Result<(), LabError> {
        let target = SocketAddr::from((node.v4(), HTTP_PORT));
        let deadline = Instant::now() + READY_MAX;
        let namespace = self.namespace(Node::Client)?;
        loop {
            let connect = || TcpStream::connect_timeout(&target, Duration::from_secs(1));
            if namespace.run(connect)?.is_ok() {
                return Ok(());
            }
            let ended = processes.iter_mut().find_map(|process| {
                process.exit_status().map(|status| format!("({status}) {}", process.log_tail()))
            });
            if ended.is_some() || Instant::now() > deadline {
                let log = ended.or_else(|| processes.first().map(Process::log_tail)).unwrap_or_default();
                return Err(LabError::NotReady { name: node.name(), log });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Real {
    fn all(&mut self) -> impl Iterator<Item = &mut Process> {
        std::iter::once(&mut self.web_server).chain(&mut self.processes)
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        for process in self.all() {
            process.stop(END_MAX);
        }
    }
}

fn check_machine() -> Result<(), LabError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    for (program, package) in [("ip", "iproute2"), ("ethtool", "ethtool"), ("nginx", "nginx-light")] {
        command::find(program, package)?;
    }
    Ok(())
}

/// What must be set before the interface is there or up, as `PATH=VALUE` under `/proc/sys/net`.
fn sysctls(node: Node) -> Vec<&'static str> {
    // Duplicate address detection would hold IPv6 back for two seconds, and every real server has the VIP.
    let mut all = vec![
        "ipv6/conf/default/accept_dad=0",
        "ipv6/conf/all/accept_dad=0",
        "ipv6/conf/default/accept_ra=0",
        "ipv6/conf/default/dad_transmits=0",
    ];
    if let Node::Real(_) = node {
        // Only the director answers ARP for the VIP (direct routing).
        all.extend(["ipv4/conf/all/arp_ignore=1", "ipv4/conf/all/arp_announce=2"]);
    }
    all
}

fn write_sysctls(namespace: &Namespace, settings: &[&str]) -> Result<(), LabError> {
    // /proc/sys/net shows the namespace of the thread that opens it.
    let write = || {
        for setting in settings {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            let path = Path::new("/proc/sys/net").join(name);
            std::fs::write(&path, value).map_err(io_failed(format!("write {}", path.display())))?;
        }
        Ok(())
    };
    namespace.run(write)?
}

/// Lets an interface take what its peer sends from XDP.
pub(crate) fn attach_pass(namespace: &Namespace, interface: &str) -> Result<(), LabError> {
    let attach = async {
        let netlink = Netlink::open()?;
        let port = Interface::by_name(&netlink, interface).await?;
        host::xdp::attach_pass(&netlink, port.index).await?;
        Ok::<(), LabError>(())
    };
    // The future is made here and run there, on a thread of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(io_failed("start a runtime"))?;
    namespace.run(move || runtime.block_on(attach))?
}

/// A packet must reach XDP with its checksum filled in and no longer than a frame.
pub(crate) fn turn_offloads_off(namespace: &Namespace, interface: &str) -> Result<(), LabError> {
    let mut command = namespace.command(command::find("ethtool", "ethtool")?);
    command.args(["-K", interface, "tx", "off", "tso", "off", "gso", "off"]);
    command::output(command, None)?;
    Ok(())
}

fn addresses(node: Node) -> Vec<String> {
    let mut lines = vec![
        "link set lo up".to_owned(),
        format!("address add {}/24 dev {INTERFACE}", node.v4()),
        format!("address add {}/64 dev {INTERFACE} nodad", node.v6()),
        format!("link set {INTERFACE} up"),
    ];
    let vip_interface = match node {
        Node::Client => return lines,
        Node::Director => INTERFACE,
        Node::Real(_) => "lo",
    };
    lines.push(format!("address add {VIP_V4}/32 dev {vip_interface}"));
    lines.push(format!("address add {VIP_V6}/128 dev {vip_interface} nodad"));
    lines
}
