// assay-server: the authority of a trust domain.
import process from 'node:process'
import { version } from '#base/version.ts'
import { runDaemon } from '#daemon/run-daemon.ts'
import { configWarnings, serverConfigSchema } from './config.ts'
import { openSqliteDatastore } from './datastore/sql/sqlite.ts'
import { namedFileProblems } from './named-files.ts'
import { Server } from './server.ts'

const usage = `assay-server ${version}: the authority of a trust domain

  assay-server run --config FILE        serve until SIGTERM or SIGINT; SIGHUP reads FILE again
  assay-server validate --config FILE   name everything that is wrong in the file and those it names

  --help      this text
  --version   the version

Exit status: 0, all is well; 1, it failed and may be tried again; 2, somebody has to put something right first.`

process.exitCode = await runDaemon(
  {
    name: 'server',
    usage,
    schema: serverConfigSchema,
    // What the server makes is for its user and group, whatever it was started with.
    umask: 0o027,
    warnings: configWarnings,
    problems: namedFileProblems,
    open: (config, daemonProcess) =>
      Server.open(config, {
        ...daemonProcess,
        ownUid: process.geteuid?.() ?? 0,
        openDatastore: ({ path }) => openSqliteDatastore({ path, log: daemonProcess.log }),
      }),
    exitStatus: () => 0,
  },
  process.argv.slice(2),
)
