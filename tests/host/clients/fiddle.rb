# Ruby's fiddle: the C library sorts by a Ruby method, before and after a fork.
require "fiddle"
require "fiddle/closure"

LIBC = Fiddle.dlopen(nil)
QSORT = Fiddle::Function.new(
  LIBC["qsort"],
  [Fiddle::TYPE_VOIDP, Fiddle::TYPE_SIZE_T, Fiddle::TYPE_SIZE_T, Fiddle::TYPE_VOIDP],
  Fiddle::TYPE_VOID
)
NUMBERS = (0...300).map { |n| 7919 * n % 1009 }

class Compare < Fiddle::Closure
  def initialize(sign)
    super(Fiddle::TYPE_INT, [Fiddle::TYPE_VOIDP, Fiddle::TYPE_VOIDP])
    @sign = sign
  end

  def call(a, b)
    @sign * (a[0, 8].unpack1("q") <=> b[0, 8].unpack1("q"))
  end
end

def sorts(compare, sign)
  memory = NUMBERS.pack("q*")
  QSORT.call(memory, NUMBERS.size, 8, compare)
  memory.unpack("q*") == NUMBERS.sort { |a, b| sign * (a <=> b) }
end

kept = Array.new(300) { Compare.new(-1) }
raise "at the start" unless kept.each_slice(50).all? { |some| sorts(some[0], -1) }
child = fork do
  kept = Array.new(300) { Compare.new(1) }
  GC.start
  exit!(kept.each_slice(50).all? { |some| sorts(some[0], 1) })
end
Process.wait(child)
raise "in the child" unless $?.success?
raise "after the child" unless kept.each_slice(50).all? { |some| sorts(some[0], -1) }
more = Array.new(3000) { Compare.new(1) }
raise "more" unless more.each_slice(500).all? { |some| sorts(some[0], 1) }
puts "right"
