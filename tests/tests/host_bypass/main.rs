//! Ways round a rule, each of which must be refused; and for each that the same is not refused where no rule protects
//! the file, so that no test passes for another reason. What the kernel's hooks cannot refuse is at the end, with what happens.

mod processes;
mod scene;

use anyhow::{Result, ensure};
use ringfence_tests::host::{Attempt, attempt};
use scene::{MACHINE, Pair, judged, program, refused, refused_in};

const SECRET: &str = "secret";

#[test]
fn plain_open() -> Result<()> {
    refused(&["open BASE/file", "read"], SECRET, "open: EACCES")?;
    refused(&["open BASE/sub/deep/file", "read"], SECRET, "open: EACCES")
}

#[test]
fn hard_link() -> Result<()> {
    refused(&["link BASE/file BASE/new", "open BASE/new"], SECRET, "link: EACCES")?;
    refused(&["open BASE/file path", "link-fd {0} BASE/new", "open BASE/new"], SECRET, "link-fd: EACCES")
}

#[test]
fn symlink_chain() -> Result<()> {
    let steps =
        ["symlink BASE/file BASE/one", "symlink BASE/one BASE/two", "symlink two BASE/three", "open BASE/three"];
    refused(&steps, SECRET, "open: EACCES")
}

#[test]
fn bind_mount() -> Result<()> {
    refused(&["unshare mount", "bind BASE/sub BASE/empty", "open BASE/empty/file"], SECRET, "open: EACCES")?;
    refused(&["unshare mount", "bind BASE/file BASE/free", "open BASE/free"], SECRET, "open: EACCES")
}

#[test]
fn new_mount_api() -> Result<()> {
    refused(&["unshare mount", "open-tree BASE/sub", "open-at {0} file"], SECRET, "open-at: EACCES")?;
    let attached = ["unshare mount", "open-tree BASE/sub", "attach BASE/empty", "open BASE/empty/file"];
    refused(&attached, SECRET, "open: EACCES")
}

#[test]
fn mount_namespace() -> Result<()> {
    refused(&["unshare mount", "open BASE/file"], SECRET, "open: EACCES")?;
    refused(&["unshare mount", "rbind / /mnt/vfat", "open /mnt/vfatBASE/file"], SECRET, "open: EACCES")?;
    // The disk elsewhere: another mount of the same file system.
    let pair = Pair::on_disk()?;
    MACHINE.run(|machine| {
        for (base, expected) in [(pair.protected(), "open: EACCES"), (pair.free(), "ok")] {
            let there = base.replace("/mnt/ext4", "/mnt/vfat");
            let steps =
                ["unshare mount", "mount ext4 /mnt/vfat errors=continue /dev/ram0", &format!("open {there}/file")];
            judged(machine, &Attempt::new(steps), SECRET, expected)?;
        }
        Ok(())
    })
}

#[test]
fn user_namespace_and_bind_mount() -> Result<()> {
    let steps = ["drop 1000 1000", "unshare user mount", "bind BASE/sub BASE/empty", "open BASE/empty/file"];
    refused(&steps, SECRET, "open: EACCES")
}

#[test]
fn change_of_root() -> Result<()> {
    refused(&["chroot BASE", "open /file"], SECRET, "open: EACCES")?;
    refused(&["unshare mount", "bind BASE/sub BASE/empty", "chroot BASE/empty", "open /file"], SECRET, "open: EACCES")
}

#[test]
fn path_descriptor_and_reopen() -> Result<()> {
    refused(&["open BASE/file path", "open /proc/self/fd/{0}"], SECRET, "open: EACCES")?;
    refused(&["open BASE/sub path", "open-at {0} file"], SECRET, "open-at: EACCES")?;
    refused(&["open BASE/sub path", "fchdir", "open file"], SECRET, "open: EACCES")
}

#[test]
fn proc_of_a_process() -> Result<()> {
    refused(&["open /proc/self/rootBASE/file"], SECRET, "open: EACCES")?;
    refused(&["chdir BASE/sub", "open /proc/self/cwd/file"], SECRET, "open: EACCES")?;
    // Of another process, that sees the directory as its root.
    let pair = Pair::new()?;
    MACHINE.run(|machine| {
        for (base, expected) in [(pair.protected(), "open: EACCES"), (pair.free(), "ok")] {
            let steps =
                ["unshare mount", &format!("bind {base}/sub {base}/empty"), &format!("chroot {base}/empty"), "wait"];
            let other = Attempt::new(steps).start()?;
            judged(machine, &Attempt::new([format!("open /proc/{}/root/file", other.id())]), SECRET, expected)?;
        }
        Ok(())
    })
}

#[test]
fn openat2_resolution() -> Result<()> {
    for how in ["beneath", "in-root", "no-symlinks", "no-magic", "no-xdev"] {
        refused(&["chdir BASE", &format!("openat2 file r {how}")], SECRET, "openat2: EACCES")?;
    }
    Ok(())
}

#[test]
fn file_handle() -> Result<()> {
    // Of a file with one name: by its handle, one with several is found by any of them.
    let steps = ["name-to-handle BASE/sub/file", "open-by-handle BASE"];
    refused(&steps, SECRET, "open-by-handle: EACCES")?;
    refused_in(&Pair::on_disk()?, &steps, SECRET, "open-by-handle: EACCES")
}

/// A file found by its handle alone has a name that hangs from nothing. Such a path is unknown: refused, also where no
/// rule protects it, and counted as such.
#[test]
fn file_handle_without_a_name() -> Result<()> {
    let pair = Pair::on_disk()?;
    MACHINE.run(|machine| {
        let before = machine.hits()?;
        let steps =
            [&format!("name-to-handle {}/sub/file", pair.protected()), "drop-caches", "open-by-handle /mnt/ext4"];
        let outcome = attempt(steps)?;
        ensure!(outcome == "open-by-handle: EACCES", "{outcome}");
        ensure!(machine.hits()?.since(&before, SECRET)? == 1, "refused by another rule");
        Ok(())
    })
}

#[test]
fn io_uring() -> Result<()> {
    refused(&["uring-open BASE/file"], SECRET, "uring-open: EACCES")
}

#[test]
fn rename_of() -> Result<()> {
    refused(&["rename BASE/file BASE/new", "open BASE/new"], SECRET, "rename: EACCES")?;
    refused(&["uring-rename BASE/file BASE/new", "open BASE/new"], SECRET, "uring-rename: EACCES")
}

#[test]
fn rename_onto() -> Result<()> {
    refused(&["rename BASE/free BASE/file"], SECRET, "rename: EACCES")?;
    refused(&["rename BASE/free BASE/other"], "fixed", "rename: EACCES")
}

#[test]
fn exchange() -> Result<()> {
    refused(&["exchange BASE/free BASE/file", "open BASE/free"], SECRET, "exchange: EACCES")?;
    refused(&["exchange BASE/file BASE/free", "open BASE/free"], SECRET, "exchange: EACCES")?;
    refused(&["exchange BASE/empty BASE/sub", "open BASE/empty/file"], SECRET, "exchange: EACCES")
}

#[test]
fn rename_of_a_parent() -> Result<()> {
    refused(&["rename BASE/sub BASE/new", "open BASE/new/file"], SECRET, "rename: EACCES")?;
    refused(&["rename BASE/sub/deep BASE/new", "open BASE/new/file"], SECRET, "rename: EACCES")?;
    // Below it there is also what may not be written, and so not renamed.
    refused(&["rename BASE /moved", "open /moved/file"], "fixed", "rename: EACCES")
}

#[test]
fn mount_over_a_parent() -> Result<()> {
    refused(&["mount tmpfs BASE", "umount BASE"], "fixed", "mount: EACCES")?;
    refused(&["bind BASE/empty BASE/sub", "umount BASE/sub"], SECRET, "bind: EACCES")
}

#[test]
fn overlay() -> Result<()> {
    let lower = "mount overlay BASE/empty lowerdir=BASE/sub,upperdir=BASE/work,workdir=BASE/work2,userxattr";
    let root = ["mkdir BASE/work2", "unshare mount", lower, "open BASE/empty/file"];
    refused(&root, SECRET, "open: EACCES")?;
    let user = ["drop 1000 1000", "mkdir BASE/work2", "unshare user mount", lower, "open BASE/empty/file"];
    refused(&user, SECRET, "open: EACCES")?;
    let upper = "mount overlay BASE/empty lowerdir=BASE/work,upperdir=BASE/sub,workdir=BASE/work2";
    refused(&["mkdir BASE/work2", "unshare mount", upper, "open BASE/empty/file"], SECRET, "open: EACCES")
}

#[test]
fn map_and_protect() -> Result<()> {
    refused(&["open BASE/program", "map-exec"], "program", "map-exec: EACCES")?;
    refused(&["open BASE/program", "map-exec-shared"], "program", "map-exec-shared: EACCES")?;
    refused(&["open BASE/program", "protect-exec"], "program", "protect-exec: EACCES")
}

#[test]
fn execution() -> Result<()> {
    refused(&["exec BASE/program"], "program", "exec: EACCES")?;
    refused(&["open BASE/program path", "exec-fd"], "program", "exec-fd: EACCES")?;
    refused(&["exec /proc/self/rootBASE/program"], "program", "exec: EACCES")?;
    refused(&["link BASE/program BASE/new", "exec BASE/new"], "program", "link: EACCES")
}

#[test]
fn script_with_a_denied_interpreter() -> Result<()> {
    let pair = Pair::new()?;
    MACHINE.run(|machine| {
        judged(machine, &Attempt::new([format!("exec {}/script", pair.protected())]), "program", "exec: EACCES")?;
        // The interpreter takes the script's name for a step.
        let error = attempt([format!("exec {}/script", pair.free())]).err();
        ensure!(error.is_some_and(|error| format!("{error:#}").contains("no such step")), "the script did not run");
        Ok(())
    })
}

#[test]
fn nameless_execution() -> Result<()> {
    let ways: [&[&str]; 2] = [
        &["become USER", "memfd /bin/actor", "exec-fd"],
        &["copy /bin/actor /tmp/gone", "open /tmp/gone", "unlink /tmp/gone", "become USER", "exec-fd"],
    ];
    MACHINE.run(|machine| {
        for (steps, (user, expected)) in
            ways.iter().flat_map(|way| [("4001", "exec-fd: EACCES"), ("4002", "ok")].map(|user| (way, user)))
        {
            let steps = steps.iter().map(|step| step.replace("USER", user));
            judged(machine, &Attempt::new(steps), "nameless", expected)?;
        }
        Ok(())
    })
}

#[test]
fn execution_through_the_dynamic_loader() -> Result<()> {
    const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
    let pair = Pair::new()?;
    MACHINE.run(|machine| {
        let before = machine.hits()?;
        let (done, printed) = program(&[LOADER, &format!("{}/dynamic", pair.protected()), "/shared"])?;
        ensure!(!done && machine.hits()?.since(&before, "program")? > 0, "not refused: {printed}");
        let (done, printed) = program(&[LOADER, &format!("{}/dynamic", pair.free()), "/shared"])?;
        ensure!(done && printed == "shared", "refused without a rule: {printed}");
        Ok(())
    })
}

#[test]
fn sockets() -> Result<()> {
    const WAYS: [(&str, &str); 8] = [
        ("connect tcp 127.0.0.1:PORT", "connect"),
        ("connect tcp [::1]:PORT", "connect"),
        ("connect tcp [::ffff:127.0.0.1]:PORT", "connect"),
        ("connect udp [::ffff:127.0.0.1]:PORT", "connect"),
        ("send udp 127.0.0.1:PORT", "send"),
        ("send-message udp [::ffff:127.0.0.1]:PORT", "send-message"),
        ("fast-open tcp 127.0.0.1:PORT", "fast-open"),
        ("reconnect udp 127.0.0.1:4002 127.0.0.1:PORT", "reconnect"),
    ];
    MACHINE.run(|machine| {
        for (step, word) in WAYS {
            for (port, expected) in [("4001", format!("{word}: EACCES")), ("4002", "ok".to_owned())] {
                judged(machine, &Attempt::new([step.replace("PORT", port)]), "port", &expected)?;
            }
        }
        Ok(())
    })
}

/// An interpreter reads what it interprets: `exec` rules do not see `sh FILE`. What may be interpreted is a matter of
/// `read` rules.
#[test]
fn interpreters_are_not_refused() -> Result<()> {
    MACHINE.run(|_| {
        let (_, printed) = program(&["/bin/sh", "-c", "echo done"])?;
        ensure!(printed == "done\n", "{printed}");
        Ok(())
    })
}
