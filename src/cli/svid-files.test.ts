import assert from 'node:assert/strict'
import {
  chmodSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  watch,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { test } from 'node:test'
import { SystemRandom } from '#base/random.ts'
import { certificatesPem, writeSvidFiles } from './svid-files.ts'

const random = new SystemRandom()
const files = [
  { name: 'key.pem', content: 'a key', secret: true },
  { name: 'svid.pem', content: 'a certificate' },
]
const modeOf = (path: string): number => statSync(path).mode & 0o777

function inFolder(use: (folder: string) => Promise<void>): () => Promise<void> {
  return async () => {
    const folder = mkdtempSync(join(tmpdir(), 'assay-svid-files-'))
    try {
      await use(folder)
    } finally {
      rmSync(folder, { recursive: true })
    }
  }
}

test(
  'writeSvidFiles() makes the folder for its user alone, and the key too, whatever the umask',
  inFolder(async (folder) => {
    for (const [umask, name] of [
      [0o000, 'open'],
      [0o077, 'closed'],
    ] as const) {
      const before = process.umask(umask)
      try {
        const directory = join(folder, name)
        const paths = await writeSvidFiles(directory, files, { random })
        assert.deepEqual(paths, [join(directory, 'key.pem'), join(directory, 'svid.pem')])
        assert.equal(modeOf(directory), 0o700)
        assert.equal(modeOf(join(directory, 'key.pem')), 0o600)
        assert.equal(modeOf(join(directory, 'svid.pem')), 0o644)
        assert.equal(readFileSync(join(directory, 'key.pem'), 'utf8'), 'a key')
      } finally {
        process.umask(before)
      }
    }
  }),
)

test(
  'writeSvidFiles() closes a key file that was open to all, and leaves the folder as it is',
  inFolder(async (folder) => {
    chmodSync(folder, 0o755)
    writeFileSync(join(folder, 'key.pem'), 'old')
    chmodSync(join(folder, 'key.pem'), 0o666)
    await writeSvidFiles(folder, files, { random })
    assert.equal(modeOf(join(folder, 'key.pem')), 0o600)
    assert.equal(readFileSync(join(folder, 'key.pem'), 'utf8'), 'a key')
    assert.equal(modeOf(folder), 0o755)
  }),
)

test(
  'writeSvidFiles() opens no file to others that somebody puts a link to in its place',
  inFolder(async (folder) => {
    const secret = join(folder, 'secret')
    writeFileSync(secret, 'of somebody else', { mode: 0o600 })
    const directory = join(folder, 'theirs')
    const path = join(directory, 'svid.pem')
    await writeSvidFiles(directory, files, { random })
    let swaps = 0
    // Whoever owns the directory hears of the new name at once.
    const watcher = watch(directory, (_event, name) => {
      if (name !== 'svid.pem') return
      watcher.close()
      unlinkSync(path)
      symlinkSync(secret, path)
      swaps += 1
    })
    await writeSvidFiles(directory, files, { random })
    watcher.close()
    assert.equal(swaps, 1)
    assert.equal(modeOf(secret), 0o600)
  }),
)

test(
  'writeSvidFiles() says which folder cannot be made, and why',
  inFolder(async (folder) => {
    writeFileSync(join(folder, 'file'), '')
    const directory = join(folder, 'file', 'svids')
    await assert.rejects(writeSvidFiles(directory, files, { random }), {
      code: 'failed-precondition',
      message: `cannot make the directory ${directory}: a part of the path is a file`,
    })
  }),
)

test('certificatesPem() writes one block for each certificate', () => {
  const pem = certificatesPem([Uint8Array.of(1), Uint8Array.of(2)])
  assert.equal(pem.match(/BEGIN CERTIFICATE/g)?.length, 2)
  assert.equal(certificatesPem([]), '')
})
