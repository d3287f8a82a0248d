//! From the command line to the end of the process.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ringfence_api::{ApplyRequest, ApplySource};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::cli::Arguments;
use crate::daemon::Daemon;
use crate::error::{Error, Result, blocking, with_sources};
use crate::interfaces::watch;
use crate::kernel::{Kernel, mount_bpffs, one_heap};
use crate::privileges;
use crate::server::caller::Caller;
use crate::server::peer::Peer;
use crate::server::{routes, socket};
use crate::set_watch;
use crate::tick;

/// News of interfaces that may wait.
const EVENTS: usize = 1024;
/// The kernel answers a dump at once; a machine with very many interfaces takes longer.
const FIRST_LOOK: Duration = Duration::from_secs(30);

/// Runs the daemon until it is told to end. What it loaded stays in force.
pub fn run(arguments: Arguments) -> Result<()> {
    one_heap();
    privileges::restrict_new_files();
    mount(&arguments.bpffs);
    let kernel = Kernel::open(&arguments.bpffs, arguments.cgroup.as_deref())?;
    if arguments.off {
        return Daemon::open(arguments, kernel)?.stay_off();
    }
    let path = arguments.socket.clone();
    let daemon = Arc::new(Daemon::open(arguments, kernel)?);
    let listener = socket::listen(&path)?;
    // Before there is a second thread: capabilities belong to threads.
    privileges::drop_unneeded()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::system("cannot start the runtime"))?;
    let result = runtime.block_on(serve(Arc::clone(&daemon), listener));
    notify(&[NotifyState::Stopping]);
    daemon.finish();
    let _ = fs::remove_file(&path);
    // A compilation that still runs is not waited for: nothing of it is in force.
    runtime.shutdown_background();
    result
}

/// systemd mounts the BPF filesystem; elsewhere it is done here. What goes wrong is named by what needs it.
fn mount(bpffs: &Path) {
    let place = bpffs.ancestors().find(|path| path.exists()).unwrap_or(bpffs);
    let place = if place == Path::new("/sys/fs/bpf") { place } else { bpffs };
    let mounted = fs::create_dir_all(place).map_err(|error| error.to_string());
    let mounted = mounted.and_then(|()| mount_bpffs(place).map_err(|error| with_sources(&error)));
    if let Err(error) = mounted {
        tracing::debug!(error, "no BPF filesystem was mounted");
    }
}

async fn serve(daemon: Arc<Daemon>, listener: UnixListener) -> Result<()> {
    let on = |kind| signal(kind).map_err(Error::system("cannot take signals"));
    let (mut hangup, mut terminate, mut interrupt) =
        (on(SignalKind::hangup())?, on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    let (sender, mut events) = mpsc::channel(EVENTS);
    tokio::spawn(watch::follow(Arc::clone(&daemon.network), sender));
    if timeout(FIRST_LOOK, events.recv()).await.is_err() {
        let error = std::io::Error::from(std::io::ErrorKind::TimedOut);
        return Err(Error::System { what: "cannot list the interfaces".to_owned(), error });
    }
    let worker = Arc::clone(&daemon);
    blocking(move || worker.start()).await?;

    let listener = tokio::net::UnixListener::from_std(listener).map_err(Error::system("cannot use the socket"))?;
    let service = routes::router(Arc::clone(&daemon)).into_make_service_with_connect_info::<Peer>();
    let server = tokio::spawn(async move { axum::serve(listener, service).await });
    tokio::spawn(tick::expiries(Arc::clone(&daemon)));
    tokio::spawn(tick::interfaces(Arc::clone(&daemon), events));
    let followed = tick::follow_mounts(Arc::clone(&daemon));
    let problem =
        followed.err().map(|error| format!("mounts are looked at now and then only: {}", with_sources(&error)));
    crate::apply::switch::note(&mut daemon.control(), "mount-watch", problem);
    tokio::spawn(tick::rounds(Arc::clone(&daemon)));
    tokio::spawn(set_watch::follow(Arc::clone(&daemon)));
    let text = status_text(&daemon);
    tracing::info!(status = text, "ready");
    notify(&[NotifyState::Ready, NotifyState::Status(&text)]);

    loop {
        tokio::select! {
            signal = next(&mut hangup) => signal?,
            signal = next(&mut terminate) => return signal,
            signal = next(&mut interrupt) => return signal,
        }
        reload(&daemon).await;
        if server.is_finished() {
            return Err(Error::Internal("the API server has ended".to_owned()));
        }
    }
}

async fn next(signal: &mut Signal) -> Result<()> {
    signal.recv().await.ok_or_else(|| Error::Internal("signals have ended".to_owned()))
}

/// SIGHUP: the configured file again.
async fn reload(daemon: &Arc<Daemon>) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
    let request = ApplyRequest {
        source: ApplySource::Reload,
        confirm_seconds: None,
        dry_run: false,
        force: false,
        expect_digest: None,
    };
    let worker = Arc::clone(daemon);
    let applied = blocking(move || worker.apply(request, &Caller::Daemon, "reload")).await;
    let problem = applied.as_ref().err().map(|error| {
        tracing::error!(error = with_sources(error), "not reloaded; the policy in force stays");
        format!("the configured policy was not reloaded: {}", error.body().message)
    });
    crate::apply::switch::note(&mut daemon.control(), "policy", problem);
    let text = status_text(daemon);
    notify(&[NotifyState::Ready, NotifyState::Status(&text)]);
}

fn status_text(daemon: &Daemon) -> String {
    let control = daemon.control();
    if daemon.is_off() {
        return format!("off: nothing is enforced: {}", daemon.why_off());
    }
    match &control.running {
        None => "no policy: nothing is enforced".to_owned(),
        Some(running) => {
            let degraded = if control.problems.is_empty() { "" } else { ", degraded" };
            format!(
                "generation {} in force on {} interfaces{degraded}",
                running.number(),
                control.attachments.all.len()
            )
        }
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}
