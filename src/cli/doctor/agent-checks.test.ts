import assert from 'node:assert/strict'
import { test } from 'node:test'
import { version } from '#base/version.ts'
import { runsOlder } from './agent-checks.ts'

test('runsOlder() names the version that runs and the one that is installed, when they differ', () => {
  assert.deepEqual(runsOlder(version), [])
  assert.deepEqual(runsOlder(''), [], 'an agent of before it said so')
  const [finding, ...others] = runsOlder('0.0.1')
  assert.deepEqual(others, [])
  assert.equal(finding?.what, `the agent that runs is 0.0.1, and ${version} is installed`)
  assert.match(finding?.remedy ?? '', /^systemctl restart assay-agent/)
})
