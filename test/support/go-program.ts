import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'

const root = new URL('../..', import.meta.url).pathname

/** A program in Go that tests run; or why it cannot be had. */
export type GoProgram =
  | { readonly binary: string; readonly missing?: undefined }
  | { readonly missing: string }

/** Builds the program in `directory`, from the root of the tree; Go does nothing when it is built already. */
export function goProgram(directory: string, name: string): GoProgram {
  if (spawnSync('go', ['version']).status !== 0) return { missing: 'Go is not installed' }
  const cache = `${root}.cache/go-programs`
  const binary = `${cache}/${name}`
  mkdirSync(cache, { recursive: true })
  const built = spawnSync('go', ['build', '-o', binary, '.'], {
    cwd: `${root}${directory}`,
    encoding: 'utf8',
  })
  if (built.status === 0) return { binary }
  return { missing: `Go cannot build ${directory}: ${built.stderr.trim().split('\n').at(-1)}` }
}
