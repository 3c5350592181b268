//! Figures of trampfd beside its peers.

mod call;
mod clock;
mod make;
mod peers;
mod table;

use table::Row;

fn pin() {
    // SAFETY: a set of its own, of the size that is given.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let cpu = libc::sched_getcpu().max(0) as usize;
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set);
    }
}

fn main() {
    pin();
    let groups: [(&str, fn() -> Vec<Row>); 3] =
        [("call", call::hot), ("many", call::many), ("make", make::hot)];
    let wanted = std::env::args().nth(1);
    let mut rows = Vec::new();
    for (name, group) in groups {
        if wanted.as_deref().is_none_or(|wanted| wanted == name) {
            for row in group() {
                table::print(&row);
                rows.push(row);
            }
        }
    }
    let _ = std::fs::create_dir_all("target/bench");
    let _ = std::fs::write("target/bench/report.json", table::json(&rows));
}
