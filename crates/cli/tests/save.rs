//! `sluice save` of a running director, after `apply` and after changes by hand. Needs root and nginx, of which the cluster
//! is made.

use lab::demo::Cancel;
use lab::demo::director::Director;
use lab::{Lab, LabError, LabOptions};
use std::path::Path;
use std::process::Command;

const FILE: &str = r#"# The web. Ask Eve.

[server.fred]
address = "10.0.0.1"

[server.jane]
address = "10.0.0.2"
weight = 2

[template.web]
scheduler = "rr"
servers = ["fred", "jane"]

[service.www]
template = "web"
vip = "192.0.2.10"
ports = ["tcp/80", "tcp/443"]
"#;

struct World {
    director: Director,
    lab: Lab,
}

impl World {
    /// What a command prints; it must succeed.
    fn sluice(&self, words: &[&str]) -> String {
        let mut command = Command::new(self.director.front().program());
        command.args(words).env("SLUICE_SOCKET", self.director.front().socket());
        let output = command.output().expect("sluice");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn apply(&self, text: &str) -> String {
        let path = self.lab.directory().join("cluster.toml");
        std::fs::write(&path, text).expect("a file");
        self.on("apply", &path)
    }

    fn on(&self, command: &str, file: &Path) -> String {
        self.sluice(&[command, file.to_str().expect("UTF-8")])
    }
}

#[test]
fn what_was_applied_is_saved_with_what_was_changed_by_hand_since() {
    let lab = match Lab::new(LabOptions { reals: 2, ..LabOptions::default() }) {
        Err(LabError::NotRoot | LabError::Command(lab::command::CommandError::Missing { .. })) => {
            testkit::skip!("needs root, iproute2, ethtool and nginx");
        }
        made => made.expect("a cluster"),
    };
    let director =
        Director::start(&lab, env!("CARGO_BIN_EXE_sluice").into(), &Cancel::default()).expect("director");
    let world = World { director, lab };
    world.apply(FILE);
    assert_eq!(world.sluice(&["save"]), FILE);

    let by_hand = "-e -t 192.0.2.10:443 -r 10.0.0.2 -g -w 0";
    if let Err(error) = world.director.front().ipvsadm(by_hand) {
        panic!("{by_hand}: {}", runtime::Chain(&error));
    }
    world.sluice(&["drain", "10.0.0.1"]);
    world.sluice(&["set", "sloppy_tcp", "1"]);
    let saved = world.sluice(&["save"]);
    let rest = FILE
        .replace("address = \"10.0.0.1\"\n", "address = \"10.0.0.1\"\ndrain = true\n")
        .replace("[\"tcp/80\", \"tcp/443\"]", "\"tcp/80\"");
    let added = "\n[service.www-2]\ntemplate = \"web\"\nvip = \"192.0.2.10\"\nports = \"tcp/443\"\n\
                 servers = [\"fred\", { server = \"jane\", weight = 0, last_weight = 2 }]\n\
                 \n[settings]\nsloppy_tcp = 1\n";
    let (header, text) = saved.split_once("\n\n").expect("a header");
    assert_eq!(text, format!("{rest}{added}"));
    assert!(header.starts_with("# Saved by sluice: configuration 1 ("), "{header}");
    assert!(header.contains("\n#     ~ real server 10.0.0.2:443: weight 2 -> 0"), "{header}");
    let path = world.lab.directory().join("saved.toml");
    std::fs::write(&path, &saved).expect("a file");
    assert!(world.on("plan", &path).starts_with("nothing to change"), "{saved}");
    assert!(world.apply(&saved).starts_with("nothing to change"), "{saved}");
    assert_eq!(world.sluice(&["save"]), saved, "the file that was applied last");
}
