// SPDX-License-Identifier: MIT OR Apache-2.0
//
// qsort with a key: the comparator has one argument more than qsort knows.
//
//     zig build-exe sort.zig -lc -ltrampfd

const std = @import("std");

const Function = *const fn () callconv(.c) void;
const Compare = *const fn (?*const anyopaque, ?*const anyopaque) callconv(.c) c_int;

extern fn trampfd_new(code: Function, data: ?*anyopaque, reg: i32) ?Function;
extern fn trampfd_free(closure: ?Function) i32;
extern fn trampfd_detail() [*:0]const u8;
extern fn qsort(base: *anyopaque, count: usize, size: usize, compare: Compare) void;
extern fn printf(format: [*:0]const u8, ...) c_int;

// TRAMPFD_ARG
fn arg(n: i32) i32 {
    return 256 + n;
}

fn byDistance(a: *const c_int, b: *const c_int, origin: *const c_int) callconv(.c) c_int {
    const near: c_int = @intCast(@abs(a.* - origin.*));
    const far: c_int = @intCast(@abs(b.* - origin.*));
    return near - far;
}

pub fn main() u8 {
    var numbers = [_]c_int{ 1, 9, 5, 12, 7 };
    var origin: c_int = 8;
    const closure = trampfd_new(@ptrCast(&byDistance), &origin, arg(2)) orelse {
        _ = printf("%s\n", trampfd_detail());
        return 1;
    };
    qsort(&numbers, numbers.len, @sizeOf(c_int), @ptrCast(closure));
    for (numbers) |number| {
        _ = printf("number %d %g\n", number, @as(f64, @floatFromInt(number)) / 2.0);
    }
    return if (trampfd_free(closure) == 0) 0 else 1;
}
