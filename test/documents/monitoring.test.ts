// What docs/monitoring ships: rules that fire, a dashboard whose queries parse, and no metric that does not exist.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { parse } from 'yaml'
import { metricNames } from '#telemetry/metrics.ts'
import { goProgram } from '../support/go-program.ts'

const run = promisify(execFile)
const root = new URL('../..', import.meta.url).pathname
const text = (path: string): Promise<string> => readFile(join(root, path), 'utf8')

/** On the path, or where scripts/install puts it. */
const promtools = ['promtool', join(root, '.cache/tools/promtool')]
const found = await Promise.allSettled(promtools.map((path) => run(path, ['--version'])))
const promtool = promtools[found.findIndex(({ status }) => status === 'fulfilled')] ?? ''
const skip = promtool === '' && 'promtool is not there (scripts/install check)'

const grafana = goProgram('test/documents/grafana', 'grafana-dashboard')
const skipGrafana = grafana.missing ?? false

interface Rule {
  readonly alert: string
  readonly expr: string
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
}

const alerts: { readonly groups: readonly { readonly rules: readonly Rule[] }[] } = parse(
  await text('docs/monitoring/alerts.yaml'),
)
const rules = alerts.groups.flatMap((group) => group.rules)

interface Panel {
  readonly id: number
  readonly type: string
  readonly title: string
  readonly gridPos: {
    readonly x: number
    readonly y: number
    readonly w: number
    readonly h: number
  }
  readonly datasource?: { readonly uid: string }
  readonly targets?: readonly {
    readonly refId: string
    readonly expr: string
    readonly datasource: { readonly uid: string }
  }[]
}

const dashboard: {
  readonly panels: readonly Panel[]
  readonly templating: { readonly list: readonly { readonly name: string }[] }
} = JSON.parse(await text('docs/monitoring/dashboard.json'))
const queries = dashboard.panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr))

/** The metrics of ours that a text names, as the programs call them. */
const named = (written: string): ReadonlySet<string> =>
  new Set(
    (written.match(/\bassay_[a-z0-9_]+/g) ?? []).map((name) =>
      name.replace(/(?<=_seconds)_(bucket|count|sum)$/, ''),
    ),
  )

test('promtool takes the alert rules', { skip }, async () => {
  await run(promtool, ['check', 'rules', '--lint-fatal', join(root, 'docs/monitoring/alerts.yaml')])
})

test('every alert rule fires when it has to, and none when all is well', { skip }, async () => {
  const cases = join(root, 'test/documents/alerts.promtool.yaml')
  await run(promtool, ['test', 'rules', cases])
  const tried = await readFile(cases, 'utf8')
  const untried = rules.filter(({ alert }) => !tried.includes(`"${alert}"`))
  assert.deepEqual(
    untried.map(({ alert }) => alert),
    [],
  )
})

test('every query of the dashboard is PromQL', { skip }, async () => {
  const directory = await mkdtemp(join(tmpdir(), 'assay-dashboard-'))
  try {
    const file = join(directory, 'queries.json')
    const asRules = queries.map((expr, index) => ({
      record: `query:${index}`,
      expr: expr.replaceAll('$__rate_interval', '5m'),
    }))
    await writeFile(file, JSON.stringify({ groups: [{ name: 'dashboard', rules: asRules }] }))
    await run(promtool, ['check', 'rules', '--lint=none', file])
  } finally {
    await rm(directory, { recursive: true })
  }
})

/** What Grafana's schema says against a dashboard; empty when nothing. */
async function grafanaRefuses(json: string): Promise<string> {
  assert.ok(grafana.missing === undefined)
  const directory = await mkdtemp(join(tmpdir(), 'assay-dashboard-'))
  try {
    const file = join(directory, 'dashboard.json')
    await writeFile(file, json)
    return await run(grafana.binary, [file]).then(
      () => '',
      (error: { readonly stderr: string }) => error.stderr,
    )
  } finally {
    await rm(directory, { recursive: true })
  }
}

test("the dashboard is right by Grafana's own schema", { skip: skipGrafana }, async () => {
  assert.equal(await grafanaRefuses(await text('docs/monitoring/dashboard.json')), '')
})

test("Grafana's schema refuses what it does not know, or misses", {
  skip: skipGrafana,
}, async () => {
  const written = await text('docs/monitoring/dashboard.json')
  for (const [from, to, says] of [
    ['"expr":', '"query":', /targets\[0\]\.Dataquery: unexpected field 'query'/],
    ['"justifyMode": "auto",', '', /options\.justifyMode: required field is missing/],
    ['"schemaVersion": 38', '"schemaVersion": "38"', /schemaVersion: json: cannot unmarshal/],
  ] as const) {
    assert.match(await grafanaRefuses(written.replace(from, to)), says)
  }
})

test('rules and dashboard name metrics that there are', () => {
  const known = new Set<string>(metricNames)
  const unknown = [...rules.map(({ expr }) => expr), ...queries].flatMap((expr) => [
    ...named(expr).difference(known),
  ])
  assert.deepEqual(unknown, [])
})

test('the dashboard shows every metric', () => {
  assert.deepEqual([...new Set<string>(metricNames).difference(named(queries.join('\n')))], [])
})

test('docs/operations.md documents every metric, and no other', async () => {
  const [, section = ''] =
    /## Metrics\n([\s\S]*?)\n## /.exec(await text('docs/operations.md')) ?? []
  const known = new Set<string>(metricNames)
  assert.deepEqual([...known.difference(named(section))], [])
  assert.deepEqual([...named(section).difference(known)], [])
})

test('every alert rule has a severity, a summary, and a runbook that is there', async () => {
  for (const { alert, labels, annotations } of rules) {
    assert.match(labels['severity'] ?? '', /^(critical|warning)$/, alert)
    assert.ok((annotations['summary'] ?? '').length > 20, alert)
    const [path = '', anchor] = (annotations['runbook'] ?? '').split('#')
    const headings = [...(await text(path)).matchAll(/^#+ (.*)$/gm)].map(([, title = '']) =>
      title
        .toLowerCase()
        .replaceAll(/[^\w\- ]/g, '')
        .replaceAll(' ', '-'),
    )
    if (anchor !== undefined) assert.ok(headings.includes(anchor), `${alert}: ${path}#${anchor}`)
  }
})

test('the dashboard is of the structure that Grafana imports: ids, places, data sources, variables', () => {
  const { panels, templating } = dashboard
  const ids = panels.map(({ id }) => id)
  assert.equal(new Set(ids).size, ids.length)
  const taken = new Set<string>()
  const variables = new Set(templating.list.map(({ name }) => name))
  for (const { title, type, gridPos, datasource, targets = [] } of panels) {
    assert.match(type, /^(row|stat|timeseries)$/, title)
    assert.ok(gridPos.x + gridPos.w <= 24, `${title} is too wide`)
    for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
      for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
        assert.ok(!taken.has(`${x} ${y}`), `${title} lies upon another panel`)
        taken.add(`${x} ${y}`)
      }
    }
    if (type === 'row') continue
    assert.equal(datasource?.uid, `\${datasource}`)
    assert.ok(targets.length > 0, title)
    const refs = targets.map(({ refId }) => refId)
    assert.equal(new Set(refs).size, refs.length, title)
    for (const { expr } of targets) {
      for (const [, name = ''] of expr.matchAll(/\$(\w+)/g)) {
        assert.ok(variables.has(name) || name === '__rate_interval', `${title}: $${name}`)
      }
    }
  }
})
