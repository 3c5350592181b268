//! The subject as a program.

fn main() {
    std::process::exit(trampfd_subject::run(std::env::args().skip(1)));
}
