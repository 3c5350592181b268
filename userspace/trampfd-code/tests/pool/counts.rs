//! What is counted, and that the counts are true: system calls by strace(1), mappings and pages
//! by /proc.

use std::process::Command;

use trampfd_code::pool::{Options, Pool, Pools, Stats};
use trampfd_code::vm::{Write, page_size};

use super::support::alone::{alone, output_by, passes};
use super::{Module, answer, bytes, check, modules, options, rows, rows_of};

/// Calls of what `act` does, by [`Stats`] and by who watches from outside: between two calls that
/// do nothing, the second of which says what was counted.
fn calls(pools: &Pools, act: impl FnOnce()) -> u64 {
    let before = pools.stats().system_calls;
    // SAFETY: such descriptors cannot be.
    unsafe { libc::close(-1000) };
    act();
    let calls = pools.stats().system_calls - before;
    // SAFETY: as above.
    unsafe { libc::close(-2000 - calls as i32) };
    calls
}

/// One set, modules one at a time, and a pool for each, with what is to be counted.
fn the_ways(write: Write) -> [u64; 4] {
    let pools = Pools::with(options(write)).unwrap();
    let pool = pools.create(1).unwrap();
    let mut set = None;
    let one_set = calls(&pools, || set = Some(modules(&pool, 100)));
    let finalise = calls(&pools, || pool.finalise().unwrap());
    check(&set.unwrap());
    let pool = pools.create(2).unwrap();
    let mut sets = Vec::new();
    let each = calls(&pools, || sets.extend((0..100).map(|_| modules(&pool, 1))));
    sets.iter().for_each(check);
    let free = calls(&pools, || pools.free(2).unwrap());
    [one_set, finalise, each, free]
}

#[test]
fn a_set_takes_three_system_calls_and_a_hundred_sets_a_hundred() {
    alone(|| {
        let [one_set, finalise, each, free] = the_ways(Write::Any);
        println!("by pwrite: a set {one_set}, finalise {finalise}, 100 sets {each}, free {free}");
        assert!(one_set + finalise <= 3);
        assert!(each <= 100);
        let [one_set, finalise, each, free] = the_ways(Write::Alias);
        println!("by alias: a set {one_set}, finalise {finalise}, 100 sets {each}, free {free}");
        assert_eq!((one_set, each), (0, 0));
        assert!(finalise <= 2);
    });
}

#[test]
fn strace_counts_the_same_calls() {
    let log = std::env::temp_dir().join(format!("trampfd-pool-{}.strace", std::process::id()));
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o"]).arg(&log).arg(std::env::current_exe().unwrap());
    let watched = || {
        the_ways(Write::Pwrite);
        the_ways(Write::Alias);
    };
    passes(&output_by(strace, watched));
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_file(&log).unwrap();
    // The thread and the call: "1234  mmap(NULL, ..".
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let lines: Vec<(&str, &str)> = lines.map(|(pid, call)| (pid, call.trim_start())).collect();
    let mut found = Vec::new();
    let mut since = None;
    for (i, (thread, call)) in lines.iter().enumerate() {
        if call.starts_with("close(-1000)") {
            since = Some(i + 1);
        } else if let Some(counted) = call.strip_prefix("close(-2") {
            let counted: usize = counted.split_once(')').unwrap().0.parse().unwrap();
            // `malloc` may want more memory; and a call is written in two halves where another
            // thread's came between.
            let ours = |&&(who, call): &&(&str, &str)| {
                who == *thread && !call.starts_with("brk(") && !call.starts_with("<... ")
            };
            let seen: Vec<_> = lines[since.take().unwrap()..i].iter().filter(ours).collect();
            assert_eq!(seen.len(), counted, "{seen:#?}");
            found.push(counted);
        }
    }
    assert_eq!(found.len(), 8, "four measurements each");
    assert!(found[2] >= 100, "{found:?}: a pwrite for each commit is seen");
}

#[test]
fn mappings_are_those_of_proc_and_do_not_grow() {
    alone(|| {
        // What is made once for the whole process.
        Pools::new().unwrap();
        let at_first = rows().len();
        let pools = Pools::new().unwrap();
        let at_start = pools.stats().mappings;
        assert_eq!(at_start, 3);
        let seen = |what: &str| {
            assert_eq!(rows().len() - at_first, pools.stats().mappings, "{what}");
            pools.stats().mappings - at_start
        };
        assert_eq!(seen("pools"), 0);
        let pool = pools.create(1).unwrap();
        assert_eq!(seen("a pool"), 1);
        let set = modules(&pool, 100);
        assert_eq!(seen("100 modules"), 1);
        let sets: Vec<_> = (0..100).map(|_| modules(&pool, 1)).collect();
        let with_sets = seen("100 sets");
        assert!(with_sets <= 2, "one more run: {with_sets}");
        pool.finalise().unwrap();
        assert_eq!(seen("finalised"), 0);
        let many: Vec<Pool> = (2..200).map(|id| pools.create(id).unwrap()).collect();
        for pool in &many {
            modules(pool, 3);
            pool.finalise().unwrap();
        }
        assert_eq!(seen("200 pools"), 0);
        check(&set);
        sets.iter().for_each(check);
        drop(many);
        drop(pool);
        assert_eq!(seen("freed"), 0);
        drop(pools);
        assert_eq!(rows().len(), at_first, "nothing is left");
    });
}

/// Bytes of pages that are in memory, of all that lies between the first and the last section.
fn resident(stats: Stats, base: usize) -> usize {
    let here = |start: usize| (base..base + stats.reserved).contains(&start);
    let rows = rows_of("/proc/self/smaps").into_iter().filter(|row| here(row.range.start));
    rows.map(|row| row.rss).sum()
}

#[test]
fn committed_bytes_are_those_of_proc_and_little_more_than_was_asked_for() {
    alone(|| {
        let pools = Pools::new().unwrap();
        let pool = pools.create(1).unwrap();
        let (set, all) = modules(&pool, 100);
        let touch = |set: &trampfd_code::pool::Set| {
            for section in set.sections() {
                bytes(section.address, section.len);
            }
        };
        let base = rows().into_iter().find(|row| row.rights == "r-xs").unwrap().range.start;
        touch(&set);
        pool.finalise().unwrap();
        let stats = pools.stats();
        assert_eq!(stats.payload, 100 * Module::PAYLOAD);
        println!("{stats:?}");
        assert!(stats.committed * 10 <= stats.payload * 11, "{stats:?}");
        assert_eq!(resident(stats, base), stats.committed);

        let other = pools.create(2).unwrap();
        let sets: Vec<_> = (0..100).map(|_| modules(&other, 1)).collect();
        sets.iter().for_each(|(set, _)| touch(set));
        other.finalise().unwrap();
        let two = pools.stats();
        assert_eq!(two.payload, 2 * stats.payload);
        assert!(two.committed * 10 <= two.payload * 11, "{two:?}");
        assert_eq!(resident(two, base), two.committed);

        pools.free(1).unwrap();
        let one = pools.stats();
        assert_eq!(one.payload, stats.payload);
        assert_eq!(one.committed, two.committed - stats.committed);
        assert_eq!(resident(one, base), one.committed, "the memory of a freed pool is given back");
        sets.iter().for_each(check);
        drop(all);
        pools.free(2).unwrap();
        assert_eq!((pools.stats().committed, resident(pools.stats(), base)), (0, 0));
    });
}

#[test]
fn what_was_freed_is_empty_and_used_again() {
    let mut options = Options::default();
    options.arena = 1 << 20;
    let pools = Pools::with(options).unwrap();
    let reserved = pools.stats().reserved;
    let mut first = None;
    for id in 0..200 {
        let pool = pools.create(id).unwrap();
        let (set, modules) = modules(&pool, 100);
        let code = set.section(modules[0].code).unwrap().address;
        assert_eq!(*first.get_or_insert(code), code);
        let constants = set.section(modules[0].constants).unwrap().address;
        let variables = set.section(modules[0].variables).unwrap().address;
        pools.free(id).unwrap();
        for address in [code, constants, variables] {
            assert_eq!(bytes(address, page_size()), vec![0; page_size()]);
        }
    }
    assert_eq!(pools.stats().reserved, reserved, "address space grows");
}

#[test]
fn each_pool_takes_pages_of_its_own_and_no_more() {
    let pools = Pools::new().unwrap();
    let all: Vec<Pool> = (0..500).map(|id| pools.create(id).unwrap()).collect();
    assert_eq!(pools.stats().committed, 0, "pools without sections");
    let code: Vec<usize> = all.iter().map(|pool| answer(pool, pool.id() as i32)).collect();
    assert_eq!(pools.stats().committed, 500 * page_size());
    assert!(code.iter().enumerate().all(|(i, &code)| super::call(code) == i as i32));
}
