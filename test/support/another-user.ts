import { spawnSync } from 'node:child_process'

/** A user that every Debian has, and that owns nothing. */
export const nobody = { uid: 65534, gid: 65534 } as const

/** Why no test can run a program of this checkout as {@link nobody}; false when it can. */
export const noOtherUser: string | false = (() => {
  if (process.getuid?.() !== 0) return 'only root can run a process as another user'
  const { status } = spawnSync(process.execPath, ['-e', ''], { ...nobody, stdio: 'ignore' })
  return status === 0 ? false : 'this checkout lies in a directory that other users cannot enter'
})()
