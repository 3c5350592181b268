// An `extern "C"` item implements no `Fn` on stable Rust; as a pointer it is taken.
use trampfd::Closure;

extern "C" fn handler(a: i32, data: &i32) -> i32 {
    a + data
}

fn main() {
    let _: Closure<unsafe extern "C" fn(i32) -> i32> = Closure::new(handler, 1).unwrap();
}
