import { fstatSync } from 'node:fs'

/**
 * Whether what is written to `fd` goes to systemd's journal: `$JOURNAL_STREAM` is its device and inode, and still set when
 * somebody has redirected it (systemd.exec(5)).
 */
export function isJournal(environment: { readonly JOURNAL_STREAM?: string }, fd: number): boolean {
  const [, device, inode] = /^(\d+):(\d+)$/.exec(environment.JOURNAL_STREAM ?? '') ?? []
  if (device === undefined || inode === undefined) return false
  const { dev, ino } = fstatSync(fd, { bigint: true })
  return dev === BigInt(device) && ino === BigInt(inode)
}
