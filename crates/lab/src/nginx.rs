//! A real nginx for a real server: a page with the server's name, and a file that can be sent slowly.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

/// Bytes of the file at `/slow`.
pub const SLOW_BYTES: usize = 512 * 1024;

/// Byte `position` of the file at `/slow`.
#[must_use]
pub fn slow_byte(position: usize) -> u8 {
    // A prime period, so that a piece lost or doubled shows.
    u8::try_from(position % 251).unwrap_or(0)
}

/// Writes configuration and content for server `name` into `directory`, which must exist. Gives the file for
/// `nginx -c`.
///
/// # Errors
/// When a file cannot be written.
pub fn write_files(directory: &Path, name: &str, port: u16) -> io::Result<std::path::PathBuf> {
    let root = directory.join("www");
    std::fs::create_dir_all(&root)?;
    std::fs::write(root.join("name"), format!("{name}\n"))?;
    std::fs::write(root.join("slow"), (0..SLOW_BYTES).map(slow_byte).collect::<Vec<u8>>())?;
    let path = directory.join("nginx.conf");
    std::fs::write(&path, configuration(directory, name, port))?;
    Ok(path)
}

/// One process, in the foreground, everything it writes inside `directory`.
fn configuration(directory: &Path, name: &str, port: u16) -> String {
    let dir = directory.display();
    let mut text = format!(
        "daemon off;\nmaster_process off;\npid {dir}/nginx.pid;\nerror_log {dir}/error.log;\n\
         events {{ worker_connections 4096; }}\nhttp {{\n  access_log off;\n  default_type text/plain;\n"
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _ = writeln!(text, "  {kind}_temp_path {dir}/{kind};");
    }
    let _ = write!(
        text,
        "  keepalive_requests 1000000;\n  server {{\n    listen {port} backlog=4096;\n    \
         listen [::]:{port} ipv6only=on backlog=4096;\n    root {dir}/www;\n    \
         add_header X-Server {name} always;\n    location = / {{ try_files /name =404; }}\n    \
         location = /slow {{ limit_rate $arg_rate; }}\n  }}\n}}\n"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nginx_accepts_the_configuration() {
        let Ok(nginx) = crate::command::find("nginx", "nginx-light") else {
            eprintln!("SKIPPED: needs nginx");
            return;
        };
        let dir = tempfile::tempdir().expect("directory");
        let file = write_files(dir.path(), "real7", 18_080).expect("files");
        let mut command = std::process::Command::new(nginx);
        command.arg("-t").arg("-c").arg(file).arg("-e").arg(dir.path().join("error.log"));
        let done = command.output().expect("nginx runs");
        let text = String::from_utf8_lossy(&done.stderr);
        assert!(text.contains("syntax is ok"), "{text}");
    }
}
