//! Which interfaces of this machine a policy covers, for `ringctl check`.

use std::collections::BTreeSet;
use std::path::Path;

use ringfence_policy::model::NameGlob;

/// The interfaces of the machine that a policy covers, by name: those its globs match, or by default those without a
/// master that have a hardware parent or carry a default route.
#[must_use]
pub fn covered(globs: Option<&[NameGlob]>) -> Vec<String> {
    covered_below(Path::new("/"), globs)
}

fn covered_below(root: &Path, globs: Option<&[NameGlob]>) -> Vec<String> {
    let links = root.join("sys/class/net");
    let Ok(entries) = links.read_dir() else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    if let Some(globs) = globs {
        names.retain(|name| globs.iter().any(|glob| glob.matches(name)));
        return names;
    }
    let routed = default_routes(root);
    names.retain(|name| {
        let link = links.join(name);
        name != "lo" && !link.join("master").exists() && (link.join("device").exists() || routed.contains(name))
    });
    names
}

/// Interfaces of default routes, of both families.
fn default_routes(root: &Path) -> BTreeSet<String> {
    let read = |path: &str| std::fs::read_to_string(root.join("proc/net").join(path)).unwrap_or_default();
    // Iface Destination Gateway Flags RefCnt Use Metric Mask ...
    let (v4, v6) = (read("route"), read("ipv6_route"));
    let v4 = v4.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let v4 = v4.filter(|part| part.get(1) == Some(&"00000000") && part.get(7) == Some(&"00000000"));
    // Destination length source length next-hop metric refcount use flags device; a default route on `lo` is the
    // kernel's own reject route.
    let v6 = v6.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let v6 = v6.filter(|part| part.get(1) == Some(&"00") && part.first().is_some_and(|d| d.bytes().all(|b| b == b'0')));
    let v4 = v4.filter_map(|part| part.first().map(|&name| name.to_owned()));
    v4.chain(v6.filter_map(|part| part.last().map(|&name| name.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A machine with a card, a bridge with a card in it, a tunnel with the IPv6 default route, a veth and `lo`.
    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let link = |name: &str, parts: &[&str]| {
            let path = root.path().join("sys/class/net").join(name);
            fs::create_dir_all(&path).unwrap();
            for part in parts {
                fs::create_dir(path.join(part)).unwrap();
            }
        };
        link("eth0", &["device"]);
        link("eth1", &["device", "master"]);
        link("br0", &[]);
        link("tun0", &[]);
        link("veth0", &[]);
        link("lo", &[]);
        fs::create_dir_all(root.path().join("proc/net")).unwrap();
        fs::write(
            root.path().join("proc/net/route"),
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
             eth0\t00000000\t0102000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
             veth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n",
        )
        .unwrap();
        let zero = "0".repeat(32);
        fs::write(
            root.path().join("proc/net/ipv6_route"),
            format!(
                "{zero} 00 {zero} 00 {zero} 00000400 00000001 00000000 00000001     tun0\n\
                 {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n\
                 fe80{} 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001    veth0\n",
                "0".repeat(28)
            ),
        )
        .unwrap();
        root
    }

    #[test]
    fn by_default_hardware_and_default_routes_count() {
        assert_eq!(covered_below(machine().path(), None), ["eth0", "tun0"]);
    }

    #[test]
    fn what_is_named_is_taken_as_it_is() {
        let globs = ["veth*", "lo", "eth9"].map(|glob| NameGlob(glob.into()));
        assert_eq!(covered_below(machine().path(), Some(&globs)), ["lo", "veth0"]);
    }
}
