import type { BigIntStats } from 'node:fs'

/**
 * Tells what is in a PIN file from what is written there later, without saying anything of it: a file that is written
 * again has another time, and one that is replaced another inode.
 */
export const pinFileVersion = ({ dev, ino, mtimeNs }: BigIntStats): string =>
  `${dev} ${ino} ${mtimeNs}`
