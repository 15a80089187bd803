import { closeSync, openSync, readFileSync, readSync } from 'node:fs'

/** Bytes to look for, by a name that says what they are. */
export type Needles = ReadonlyMap<string, Uint8Array>

interface Mapping {
  readonly start: number
  readonly end: number
}

const chunkBytes = 4 * 1024 * 1024

/**
 * The names of the needles that are in the memory of a process, as a core dump or a debugger would have it: every
 * mapping that can be read, has pages, and is not excluded from dumps (VmFlags `dd`, madvise(2) MADV_DONTDUMP).
 */
export function foundInMemory(pid: number, needles: Needles): ReadonlySet<string> {
  const found = new Set<string>()
  const overlap = Math.max(...[...needles.values()].map(({ length }) => length)) - 1
  const memory = openSync(`/proc/${pid}/mem`, 'r')
  try {
    const chunk = Buffer.alloc(chunkBytes)
    for (const { start, end } of dumpableMappings(pid)) {
      for (let at = start; at < end; at += chunkBytes - overlap) {
        const length = readAt(memory, chunk, { at, end })
        addFound(found, chunk.subarray(0, length), needles)
        if (at + chunkBytes >= end) break
      }
    }
  } finally {
    closeSync(memory)
  }
  return found
}

/** The names of the needles that are in `bytes`. */
export function foundIn(bytes: Uint8Array, needles: Needles): ReadonlySet<string> {
  const found = new Set<string>()
  addFound(found, Buffer.from(bytes), needles)
  return found
}

function addFound(found: Set<string>, haystack: Buffer, needles: Needles): void {
  for (const [name, needle] of needles) {
    if (!found.has(name) && haystack.includes(needle)) found.add(name)
  }
}

/** A mapping may go away between the list and the look. */
function readAt(memory: number, chunk: Buffer, { at, end }: { at: number; end: number }): number {
  try {
    return readSync(memory, chunk, 0, Math.min(chunk.length, end - at), at)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EIO') return 0
    throw error
  }
}

/** From proc_pid_smaps(5): an address range line, `Rss: … kB`, and `VmFlags: rd wr …` for each mapping. */
function dumpableMappings(pid: number): readonly Mapping[] {
  const mappings: Mapping[] = []
  const text = readFileSync(`/proc/${pid}/smaps`, 'utf8')
  for (const block of text.split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)) {
    const [, start = '', end = '', path = ''] =
      /^([0-9a-f]+)-([0-9a-f]+) r\S+ \S+ \S+ \S+ *(.*)$/m.exec(block) ?? []
    const pages = /^(?:Rss|Swap): +[1-9]/m.test(block)
    const excluded = /^VmFlags:.* (?:dd|io|pf)\b/m.test(block)
    // vsyscall lies beyond what a file offset can say, and holds code of the kernel's.
    if (start === '' || !pages || excluded || path === '[vsyscall]') continue
    mappings.push({ start: Number.parseInt(start, 16), end: Number.parseInt(end, 16) })
  }
  if (mappings.length === 0) throw new Error(`cannot read the memory map of process ${pid}`)
  return mappings
}
