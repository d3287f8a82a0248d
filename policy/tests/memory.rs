//! What it takes to read and compile large policies: the most bytes that are held at once, which is the same on every
//! machine.
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fmt::Write as _,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use ringfence_policy::{
    SourceText,
    compile::{CompileError, compile},
    load_texts,
};

/// What is promised of 10,000 path patterns.
const PROMISED: usize = 64 << 20;

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
/// One policy at a time, for the numbers to be its own.
static TURN: Mutex<()> = Mutex::new(());

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: the system's allocator does it all; the sizes are added up beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MOST.fetch_max(HELD.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    // The system moves pages, not bytes, where much is grown.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        HELD.fetch_sub(layout.size(), Relaxed);
        MOST.fetch_max(HELD.fetch_add(size, Relaxed) + size, Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Reads and compiles a policy of as many rules as patterns; with the most bytes held meanwhile.
fn compiled(name: &str, patterns: impl Iterator<Item = String>) -> (Result<(), CompileError>, usize) {
    let mut text = "ringfence: 1\nhost:\n  default: allow\n  rules:\n".to_owned();
    for (number, pattern) in patterns.enumerate() {
        writeln!(text, "    - {{name: r{number}, deny: {{op: [read, write], path: \"{pattern}\"}}}}").unwrap();
    }
    let _turn = TURN.lock().unwrap();
    let before = HELD.load(Relaxed);
    MOST.store(before, Relaxed);
    let source = SourceText { name: "p.yaml".to_owned(), text, base: PathBuf::from("/nonexistent") };
    let result = compile(&load_texts(vec![source]).unwrap().policy).map(drop);
    let most = MOST.load(Relaxed) - before;
    println!("{name}: {} KiB", most >> 10);
    (result, most)
}

#[test]
fn ten_thousand_ordinary_patterns_stay_within_the_promise() {
    const TOPS: [&str; 6] = ["/etc", "/usr/lib", "/var/lib", "/opt", "/srv/www", "/home/*"];
    let plain = |i: usize| format!("{}/package{}/file-{i}.so.{}", TOPS[i % 5], i / 7, i % 13);
    let starred = |i: usize| match i % 3 {
        0 => format!("{}/conf.d/*-{i}.conf", TOPS[i % 6]),
        1 => format!("{}/app{}/data/*/cache{i}", TOPS[i % 6], i % 97),
        _ => format!("{}/package{i}/*.so", TOPS[i % 5]),
    };
    let kinds: [(&str, &dyn Fn(usize) -> String); 5] = [
        ("plain paths", &plain),
        ("trees", &|i| format!("{}/package{}/dir{i}/**", TOPS[i % 5], i / 7)),
        ("stars", &starred),
        ("200 for every place", &|i| if i % 50 == 0 { format!("**/secret-{i}.key") } else { plain(i) }),
        ("of all kinds", &|i| match i % 10 {
            _ if i % 1000 == 5 => format!("**/secret-{i}.key"),
            0 => format!("{}/package{i}/**", TOPS[i % 6]),
            1 => format!("{}/conf.d/*-{i}.conf", TOPS[i % 6]),
            2 => format!("{}/app{}/data/*/cache{i}", TOPS[i % 6], i % 97),
            3 => format!("{}/{{a,b}}{i}/secret", TOPS[i % 6]),
            _ => plain(i),
        }),
    ];
    for (name, pattern) in kinds {
        let (result, most) = compiled(name, (0..10_000).map(pattern));
        result.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(most < PROMISED, "{name}: {most} bytes");
    }
}

#[test]
fn patterns_that_blow_up_are_refused_within_it() {
    let kinds: [(&str, &dyn Fn(usize) -> String); 4] = [
        ("many stars everywhere", &|i| format!("**/a{i}*b*c*d*/**/e?f{i}")),
        ("many stars in one place", &|i| format!("/srv/*x{i}*/f*y{i}*")),
        ("trees everywhere", &|i| format!("**/dir{i}/**")),
        ("trees and everywhere", &|i| if i % 8 == 0 { format!("**/x{i}") } else { format!("/srv/tree{i}/**") }),
    ];
    for (name, pattern) in kinds {
        let (result, most) = compiled(name, (0..3000).map(pattern));
        assert!(matches!(result, Err(CompileError::PatternsTooLarge { .. })), "{name}: {result:?}");
        assert!(most < PROMISED, "{name}: {most} bytes");
    }
}
