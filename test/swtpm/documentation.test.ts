import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { tpmRefusals } from '#attestation/tpm-refusals.ts'
import { deviceProblems } from '#tpm/device/problems.ts'

const page = readFileSync(new URL('../../docs/tpm-attestation.md', import.meta.url), 'utf8')

test('every problem of a device and every refusal stands in docs/tpm-attestation.md, and no other', () => {
  const explained = [...Object.entries(deviceProblems), ...Object.entries(tpmRefusals)]
  const rows = explained.map(
    ([reason, { meaning, remedy }]) => `| \`${reason}\` | ${meaning} | ${remedy} |`,
  )
  assert.deepEqual(page.match(/^\| `[a-z]+(-[a-z]+)+` \| .*$/gm), rows)
})
